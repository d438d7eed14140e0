worker_class = "gthread"
workers = 2
threads = 8
backlog = 511          # gunicorn calls listen(2) again: state what the listener has
keepalive = 0          # a kept connection is forgotten when a worker of gthread begins to drain
graceful_timeout = 25  # less than that of the pool
