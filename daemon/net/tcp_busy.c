/* In a file of its own: <linux/tcp.h> has fields that <netinet/tcp.h> lacks, and the two do not go
 * together. */
#include "daemon/net/tcp_busy.h"

#include <linux/tcp.h>
#include <netinet/in.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>

bool tcp_busy_read(int fd, uint64_t *ret_bytes, uint64_t *ret_busy_us) {
    struct tcp_info info;
    socklen_t size = sizeof(info);
    memset(&info, 0, sizeof(info));
    if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) < 0 ||
        size < offsetof(struct tcp_info, tcpi_busy_time) + sizeof(info.tcpi_busy_time))
        return false;
    *ret_bytes = info.tcpi_bytes_acked;
    *ret_busy_us = info.tcpi_busy_time;
    return true;
}
