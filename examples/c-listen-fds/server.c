// An HTTP server on the sockets that systemd or supervisord passes, with epoll and
// nothing but the C library. SIGTERM drains: it accepts no more, answers what is open
// with "Connection: close", and ends when no connection is left.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { FIRST = 3, MOST = 1024, GRACE = 5000 };

// Of each descriptor that is a connection: what was read of a request, and when (in ms
// of the monotonic clock) the answer is due, or, without a request, the end; 0: never.
static struct conn {
	int open, asked, length;
	int64_t due;
	char head[4096];
} conns[MOST];
static int epoll, listeners, draining, open_conns;

static int64_t now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000LL + t.tv_nsec / 1000000;
}

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static void watch(int fd)
{
	struct epoll_event e = {.events = EPOLLIN, .data.fd = fd};
	if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &e) < 0)
		die("epoll_ctl");
}

static void end(int fd)
{
	close(fd);
	conns[fd].open = 0;
	open_conns--;
}

// The other workers accept from the socket, too: when there is nothing left, one of them was faster.
static void take(int listener)
{
	int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (fd < 0)
		return;
	if (fd >= MOST) {
		close(fd);
		return;
	}
	conns[fd] = (struct conn){.open = 1};
	open_conns++;
	watch(fd);
}

static void answer(int fd)
{
	struct conn *c = &conns[fd];
	char body[32], text[256];
	int keep = !draining && !strcasestr(c->head, "\r\nConnection: close\r\n");
	snprintf(body, sizeof body, "pid %d\n", getpid());
	int n = snprintf(text, sizeof text, "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\nX-Worker: %d\r\nConnection: %s\r\n\r\n%s",
		strlen(body), getpid(), keep ? "keep-alive" : "close", body);
	c->asked = c->length = c->due = 0;
	if (send(fd, text, n, MSG_NOSIGNAL) != n || !keep)
		end(fd);
}

static void hear(int fd)
{
	struct conn *c = &conns[fd];
	ssize_t n = read(fd, c->head + c->length, sizeof c->head - 1 - c->length);
	if (n < 0 && errno == EAGAIN)
		return;
	if (n <= 0 || c->asked) {
		end(fd); // the client has gone, or sends before it was answered
		return;
	}
	c->head[c->length += n] = 0;
	if (!strstr(c->head, "\r\n\r\n"))
		return;
	char *ms = strstr(c->head, "ms=");
	c->asked = 1;
	c->due = now() + (ms ? atoi(ms + 3) : 0);
	if (!ms)
		answer(fd);
}

// Closes the own descriptors of the listening sockets: what waits in their queues is for the others. A descriptor
// stays in the epoll set as long as anybody has the socket open, so it is taken out first.
static void drain(void)
{
	draining = 1;
	for (int fd = FIRST; fd < FIRST + listeners; fd++) {
		epoll_ctl(epoll, EPOLL_CTL_DEL, fd, NULL);
		close(fd);
	}
	for (int fd = 0; fd < MOST; fd++)
		if (conns[fd].open && !conns[fd].asked)
			conns[fd].due = now() + GRACE;
}

// due answers or ends what is due, and returns the milliseconds to the next time, or -1.
static int due(void)
{
	int64_t t = now(), next = -1;
	for (int fd = 0; fd < MOST; fd++) {
		struct conn *c = &conns[fd];
		if (c->open && c->due && c->due <= t) {
			if (c->asked)
				answer(fd);
			else
				end(fd);
		} else if (c->open && c->due && (next < 0 || c->due - t < next)) {
			next = c->due - t;
		}
	}
	return next;
}

int main(void)
{
	char *pid = getenv("LISTEN_PID"), *count = getenv("LISTEN_FDS");
	if (!pid || !count || atoi(pid) != getpid() || (listeners = atoi(count)) < 1) {
		fprintf(stderr, "no sockets were passed: LISTEN_FDS\n");
		return 1;
	}
	sigset_t term;
	sigemptyset(&term);
	sigaddset(&term, SIGTERM);
	sigprocmask(SIG_BLOCK, &term, NULL);
	int signals = signalfd(-1, &term, SFD_CLOEXEC);
	epoll = epoll_create1(EPOLL_CLOEXEC);
	watch(signals);
	for (int fd = FIRST; fd < FIRST + listeners; fd++) {
		fcntl(fd, F_SETFD, FD_CLOEXEC);
		fcntl(fd, F_SETFL, O_NONBLOCK);
		watch(fd);
	}
	while (!draining || open_conns) {
		struct epoll_event events[64];
		int n = epoll_wait(epoll, events, 64, due());
		if (n < 0 && errno != EINTR)
			die("epoll_wait");
		for (int i = 0; i < n; i++) {
			int fd = events[i].data.fd;
			if (fd == signals && !draining)
				drain();
			else if (!draining && fd >= FIRST && fd < FIRST + listeners)
				take(fd);
			else if (fd >= 0 && fd < MOST && conns[fd].open)
				hear(fd);
		}
	}
	return 0;
}
