run lambda { |env|
  sleep env['QUERY_STRING'][/ms=(\d+)/, 1].to_i / 1000.0
  body = "pid #{Process.pid}\n"
  [200, { 'X-Worker' => Process.pid.to_s, 'Content-Length' => body.length.to_s }, [body]]
}
