# frozen_string_literal: true

run lambda { |_env|
  headers = { 'Content-Type' => 'text/plain', 'X-Worker' => Process.pid.to_s }
  [200, headers, ["pid=#{Process.pid} round=#{ENV['ROUND']}\n"]]
}
