/* In a file of its own: <linux/tcp.h> has fields that <netinet/tcp.h> lacks, and the two do not go
 * together. */
#include "daemon/net/tcp_rate.h"

#include <linux/tcp.h>
#include <netinet/in.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>

bool tcp_rate_read(int fd, double *ret_rate, bool *ret_is_full) {
    struct tcp_info info;
    socklen_t size = sizeof(info);
    memset(&info, 0, sizeof(info));
    if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) < 0 ||
        size < offsetof(struct tcp_info, tcpi_delivery_rate) + sizeof(info.tcpi_delivery_rate) ||
        info.tcpi_delivery_rate == 0)
        return false;
    *ret_rate = (double)info.tcpi_delivery_rate;
    *ret_is_full = !info.tcpi_delivery_rate_app_limited;
    return true;
}
