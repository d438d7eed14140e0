# frozen_string_literal: true

environment 'production'
threads 2, 8
bind_to_activated_sockets 'only'

# The thread that accepts a connection reads the request. In the queue that puma has
# otherwise it may be closed at the end, if it was accepted and its request is not here.
queue_requests false

# Ended by SIGTERM with everything answered: exit code 0.
raise_exception_on_sigterm false
