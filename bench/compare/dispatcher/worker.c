/*
 * The worker: HTTP just enough for the load client. "GET /cpu?ms=N " burns N ms
 * of CPU time, any other request is answered at once. "Connection: close" must be
 * the last header, as it is of the load client; everything else keeps the
 * connection. The process serves one request at a time.
 */
#include "dispatcher.h"

#include <time.h>

enum { MAX_FDS = 16384, REQUEST = 512 };

static struct {
	char text[REQUEST];
	int size;
} requests[MAX_FDS]; /* by descriptor; pages that are not used cost nothing */

static char closing[256], kept[256];

static void burn(long ms)
{
	struct timespec now, end;
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &end);
	end.tv_sec += ms / 1000;
	end.tv_nsec += ms % 1000 * 1000000;
	if (end.tv_nsec >= 1000000000)
		end.tv_sec++, end.tv_nsec -= 1000000000;
	do {
		for (volatile int i = 0; i < 10000; i++)
			;
		clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
	} while (now.tv_sec < end.tv_sec || (now.tv_sec == end.tv_sec && now.tv_nsec < end.tv_nsec));
}

static bool ends_with(const char *s, int n, const char *end)
{
	int m = strlen(end);
	return n >= m && memcmp(s + n - m, end, m) == 0;
}

/* serve reads what is there; false means that the connection is over. */
static bool serve(int fd)
{
	char *text = requests[fd].text;
	int *size = &requests[fd].size;
	for (;;) {
		ssize_t n = read(fd, text + *size, REQUEST - 1 - *size);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return true;
		if (n <= 0)
			return false;
		*size += n;
		text[*size] = '\0';
		if (!ends_with(text, *size, "\r\n\r\n")) {
			if (*size == REQUEST - 1)
				return false;
			continue;
		}
		if (strncmp(text, "GET /cpu?ms=", 12) == 0)
			burn(strtol(text + 12, NULL, 10));
		bool last = ends_with(text, *size, "close\r\n\r\n");
		const char *answer = last ? closing : kept;
		*size = 0;
		if (write(fd, answer, strlen(answer)) < 0 || last)
			return false;
	}
}

/* begin serves a connection at once: most often its request is there already. */
static void begin(int ep, int fd)
{
	if (fd >= MAX_FDS) {
		close(fd);
		return;
	}
	requests[fd].size = 0;
	if (serve(fd))
		watch(ep, fd, EPOLLIN, fd);
	else
		close(fd);
}

/* receive takes one message, answers it, and serves what it brought. */
static void receive(int ep, int channel)
{
	union control control;
	struct handover h;
	struct iovec iov = {&h, sizeof h};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
	ssize_t n = recvmsg(channel, &msg, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0)
		exit(0); /* the master has ended */
	struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
	if (n != sizeof h || (msg.msg_flags & MSG_CTRUNC) || !c || c->cmsg_len != CMSG_LEN(h.count * sizeof(int)))
		exit(1);
	if (send(channel, &h, sizeof h, MSG_NOSIGNAL) < 0)
		exit(0);
	int fds[BATCH];
	memcpy(fds, CMSG_DATA(c), h.count * sizeof(int));
	for (uint32_t i = 0; i < h.count; i++)
		begin(ep, fds[i]);
}

static void answers(void)
{
	char body[32];
	int n = snprintf(body, sizeof body, "%d\n", getpid());
	const char *form = "HTTP/1.1 200 OK\r\nContent-Length: %d\r\nX-Worker: %d\r\n%s\r\n%s";
	snprintf(closing, sizeof closing, form, n, getpid(), "Connection: close\r\n", body);
	snprintf(kept, sizeof kept, form, n, getpid(), "", body);
}

void worker(int channel)
{
	struct epoll_event events[EVENTS];
	int ep = epoll_create1(EPOLL_CLOEXEC);
	if (ep < 0)
		die("epoll_create1");
	answers();
	watch(ep, channel, EPOLLIN, channel);
	for (;;) {
		int n = epoll_wait(ep, events, EVENTS, -1);
		for (int i = 0; i < n; i++) {
			int fd = events[i].data.u32;
			if (fd == channel)
				receive(ep, channel);
			else if (!serve(fd))
				close(fd); /* leaves the epoll set: the master closed its copy */
		}
	}
}
