#include "plan/probe.h"

double probe_rate(const uint64_t *answered_us, size_t count, size_t bytes) {
    size_t skipped = count / 4;
    if (count < 2 || answered_us[count - 1] <= answered_us[skipped])
        return 0;
    double us = (double)(answered_us[count - 1] - answered_us[skipped]);
    return (double)(count - 1 - skipped) * (double)bytes / us;
}
