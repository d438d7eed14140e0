/* What dispatcher.c (the master) and worker.c share. */
#ifndef DISPATCHER_H
#define DISPATCHER_H

#define _GNU_SOURCE
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BATCH = 16, EVENTS = 64 };

/* The message both ways: count connections, numbered from first. */
struct handover {
	uint32_t first;
	uint32_t count;
};

/* Room for the descriptors of a message, cmsg(3). */
union control {
	struct cmsghdr head;
	char space[CMSG_SPACE(BATCH * sizeof(int))];
};

void die(const char *what);
void watch(int ep, int fd, uint32_t events, uint32_t tag);

/* worker takes the channel and serves until the master has ended. */
_Noreturn void worker(int channel);

#endif
