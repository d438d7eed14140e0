/*
 * dispatcher PORT WORKERS [none|master|all]
 *
 * A server on 127.0.0.1 whose master accepts the connections and hands them to
 * its workers in turn: the design of internal/dispatch, in C, without anything
 * that a supervisor needs besides. It is the measure of what our round_robin
 * could be at best.
 *
 *      accept4() while a worker is free         the master keeps its copy
 *         |                                         |
 *         v   SOCK_SEQPACKET, SCM_RIGHTS            v
 *      worker --- answer: {first, count} ---> copies are closed
 *
 * Whatever is in the accept queue goes into one message, up to BATCH at a time.
 * A worker has at most one message without an answer, and answers before it
 * serves: one that has not answered is busy, and gets nothing more.
 *
 * The third argument says who runs under SCHED_BATCH, sched(7). Each worker is a
 * session of its own, as the workers of a supervisor are (autogroup, sched(7)).
 * "ready" on standard output means that all workers were forked. When one of
 * them ends, the master ends, and when the master ends, so do they.
 */
#include "dispatcher.h"

#include <arpa/inet.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>

enum { MAX_WORKERS = 64, BACKLOG = 511, BEHIND = 4 };

/* A worker, as the master sees it. */
struct member {
	int channel;
	int batch[BATCH], chosen; /* accepted for it, not sent yet */
	int out[BATCH], unanswered;
	uint32_t first; /* number of out[0] */
	long given;     /* connections so far, see in_turn() */
};

static struct member members[MAX_WORKERS];
static int workers, turn;
static long most_given;

void die(const char *what)
{
	perror(what);
	exit(1);
}

static void set_batch(void)
{
	struct sched_param none = {0};
	if (sched_setscheduler(0, SCHED_BATCH, &none) < 0)
		die("sched_setscheduler");
}

void watch(int ep, int fd, uint32_t events, uint32_t tag)
{
	struct epoll_event e = {.events = events, .data.u32 = tag};
	if (epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e) < 0)
		die("epoll_ctl");
}

static bool is_free(const struct member *m)
{
	return m->unanswered == 0 && m->chosen < BATCH;
}

/* in_turn chooses the free worker that was given the fewest, and among equals the
 * one behind the last: one that was busy when its turn came gets it afterwards. */
static struct member *in_turn(void)
{
	struct member *best = NULL;
	for (int i = 0; i < workers; i++) {
		struct member *m = &members[(turn + i) % workers];
		if (is_free(m) && (!best || m->given < best->given))
			best = m;
	}
	if (!best)
		return NULL;
	turn = (best - members + 1) % workers;
	if (best->given < most_given - BEHIND)
		best->given = most_given - BEHIND;
	if (++best->given > most_given)
		most_given = best->given;
	return best;
}

static void hand_over(struct member *m)
{
	union control control = {0};
	size_t bytes = m->chosen * sizeof(int);
	struct handover h = {m->first, m->chosen};
	struct iovec iov = {&h, sizeof h};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = CMSG_SPACE(bytes)};
	control.head = (struct cmsghdr){.cmsg_len = CMSG_LEN(bytes), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
	memcpy(CMSG_DATA(&control.head), m->batch, bytes);
	if (sendmsg(m->channel, &msg, MSG_NOSIGNAL) < 0)
		die("sendmsg");
	memcpy(m->out, m->batch, bytes);
	m->unanswered = m->chosen;
	m->chosen = 0;
}

/* answered closes our copies of what the worker has taken. */
static void answered(struct member *m)
{
	struct handover h;
	ssize_t n = recv(m->channel, &h, sizeof h, MSG_DONTWAIT);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n != sizeof h || h.first != m->first || h.count != (uint32_t)m->unanswered) {
		fprintf(stderr, "dispatcher: a worker has ended\n");
		exit(1);
	}
	for (int i = 0; i < m->unanswered; i++)
		close(m->out[i]);
	m->first += m->unanswered;
	m->unanswered = 0;
}

/* pump accepts as long as somebody is free to take it, then sends. It returns
 * whether there may be more in the queue. */
static bool pump(int listener, bool arrived)
{
	struct member *m;
	while (arrived && (m = in_turn())) {
		int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (fd >= 0) {
			m->batch[m->chosen++] = fd;
			continue;
		}
		m->given--; /* its turn, but nothing came */
		turn = m - members;
		if (errno == EAGAIN)
			arrived = false;
		else if (errno != EINTR && errno != ECONNABORTED)
			die("accept4");
	}
	for (m = members; m < members + workers; m++)
		if (m->chosen > 0)
			hand_over(m);
	return arrived;
}

static void master(int listener)
{
	struct epoll_event events[EVENTS];
	bool arrived = true;
	int ep = epoll_create1(EPOLL_CLOEXEC);
	if (ep < 0)
		die("epoll_create1");
	for (int i = 0; i < workers; i++)
		watch(ep, members[i].channel, EPOLLIN, i);
	watch(ep, listener, EPOLLIN | EPOLLET, MAX_WORKERS);
	for (;;) {
		arrived = pump(listener, arrived);
		int n = epoll_wait(ep, events, EVENTS, -1);
		for (int i = 0; i < n; i++) {
			if (events[i].data.u32 == MAX_WORKERS)
				arrived = true;
			else
				answered(&members[events[i].data.u32]);
		}
	}
}

static int listen_on(int port)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int yes = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes) < 0 ||
	    bind(fd, (struct sockaddr *)&a, sizeof a) < 0 || listen(fd, BACKLOG) < 0)
		die("cannot listen");
	return fd;
}

static void start_worker(int i, int listener)
{
	int pair[2];
	pid_t self = getpid();
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		die("socketpair");
	pid_t pid = fork();
	if (pid < 0)
		die("fork");
	if (pid == 0) {
		/* Also when the master is killed: its end of the channel may be held by
		 * a worker that was forked after this one. */
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != self)
			exit(1);
		setsid();
		close(listener);
		for (int k = 0; k < i; k++)
			close(members[k].channel);
		close(pair[0]);
		worker(pair[1]);
	}
	close(pair[1]);
	members[i].channel = pair[0];
}

int main(int argc, char **argv)
{
	const char *batch = argc > 3 ? argv[3] : "none";
	workers = argc > 2 ? atoi(argv[2]) : 0;
	if (workers < 1 || workers > MAX_WORKERS || (strcmp(batch, "none") && strcmp(batch, "master") && strcmp(batch, "all"))) {
		fprintf(stderr, "usage: dispatcher PORT WORKERS [none|master|all]\n");
		return 2;
	}
	signal(SIGPIPE, SIG_IGN);
	if (!strcmp(batch, "all"))
		set_batch(); /* the workers inherit it */
	int listener = listen_on(atoi(argv[1]));
	for (int i = 0; i < workers; i++)
		start_worker(i, listener);
	if (!strcmp(batch, "master"))
		set_batch();
	puts("ready");
	fflush(stdout);
	master(listener);
}
