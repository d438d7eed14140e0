bind_to_activated_sockets 'only'
threads 1, 8
raise_exception_on_sigterm false
queue_requests false # else a connection whose request has not come yet is closed at the stop
