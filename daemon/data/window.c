#include "daemon/data/window.h"

#include <assert.h>
#include <errno.h>

int window_take(struct window *window) {
    if (window->granted == 0)
        return -EDQUOT;
    window->granted--;
    window->occupied++;
    return 0;
}

void window_occupy(struct window *window) {
    window->occupied++;
}

void window_release(struct window *window) {
    assert(window->occupied > 0);
    window->occupied--;
}

void window_forget_credits(struct window *window) {
    window->granted = 0;
}

uint32_t window_grant(struct window *window) {
    uint64_t used = (uint64_t)window->granted + window->occupied;
    if (used >= window->limit)
        return 0;
    uint32_t room = window->limit - (uint32_t)used;
    if (window->granted > 0 && room < (window->limit + 3) / 4)
        return 0;
    window->granted += room;
    return room;
}
