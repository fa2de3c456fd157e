/* How long the kernel has had something to send on a TCP connection, or waited for its arrival to
 * be acknowledged. */
#ifndef CONVOY_DAEMON_NET_TCP_BUSY_H
#define CONVOY_DAEMON_NET_TCP_BUSY_H

#include <stdbool.h>
#include <stdint.h>

/* Since the connection was made: bytes that have arrived at the other side, and microseconds in
 * which some were on their way. With large messages the quotient is the rate of the link, however
 * much the kernel buffers. False where it does not tell (Linux does from 4.10 on). */
bool tcp_busy_read(int fd, uint64_t *ret_bytes, uint64_t *ret_busy_us);

#endif
