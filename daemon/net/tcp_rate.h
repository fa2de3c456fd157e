/* How fast the kernel gets what it sends on a TCP connection to the other side. */
#ifndef CONVOY_DAEMON_NET_TCP_RATE_H
#define CONVOY_DAEMON_NET_TCP_RATE_H

#include <stdbool.h>

/* The kernel's newest measurement, in bytes per second (Cheng et al., "Delivery Rate Estimation",
 * IETF draft-cheng-iccrg-delivery-rate-estimation): from the sending of some bytes to the
 * acknowledgement of others, so that neither its buffers nor late acknowledgements count. is_full:
 * all that time there was more to send, so the rate is the link's; otherwise the link is as fast at
 * least. False where nothing was measured, or the kernel does not tell (Linux does from 4.9 on). */
bool tcp_rate_read(int fd, double *ret_rate, bool *ret_is_full);

#endif
