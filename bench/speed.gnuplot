# Bars of our time over each peer's, with their spread. out, data, threads, models, bars are set by bench/speed.
set terminal svg size 90 + 75 * models, 420 font "sans-serif,12" background "white"
set output out
set title sprintf("Convoy's time over that of each peer, %d thread%s (shorter is better; 1 is equal)", threads, threads > 1 ? "s" : "")
set style data histograms
set style histogram errorbars gap 1 lw 1
set style fill solid 0.8 border -1
set yrange [0:*]
set grid ytics
set xtics rotate by -35 noenhanced
set key top right
set datafile missing "?"
set arrow from graph 0, first 1 to graph 1, first 1 nohead lw 2 dt 2 lc rgb "#444444" front
eval("plot " . bars)
