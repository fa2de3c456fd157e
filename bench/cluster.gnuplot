# Speed-up over the number of devices, a panel per rate of the links. out, data, rates, models, longest are set by bench/cluster.
panels = words(rates)
set terminal svg size 160 + 480 * panels, 420 font "sans-serif,12" background "white"
set output out
set multiplot layout 1, panels title "Frames/s over one device's: points; what the cuts allow: lines"
set xrange [0.9:longest + 0.1]
set yrange [0:longest + 0.1]
set xtics 1
set grid
set xlabel "devices"
set key outside right noenhanced
do for [panel = 1:panels] {
    set title word(rates, panel) . " Mbit/s"
    first = (panel - 1) * words(models)
    plot x with lines lc rgb "#aaaaaa" dt 2 title "linear", \
        for [m = 1:words(models)] data index first + m - 1 using 1:3 with lines lc m notitle, \
        for [m = 1:words(models)] data index first + m - 1 using 1:2 with points pt 7 ps 0.8 lc m title word(models, m)
}
unset multiplot
