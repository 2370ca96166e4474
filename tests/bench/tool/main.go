// benchtool is the other side of the benchmarks: an origin, a yardstick and several kinds of load.
//
//	benchtool origin   an API that answers small JSON, long streams, and reads uploads to their end
//	benchtool proxy    httputil.ReverseProxy with the same credential headers: a yardstick
//	benchtool rate     requests at a constant rate, latencies counted from when each was due
//	benchtool stream   one long body, up or down
//	benchtool hold     many connections that are idle after one request, or drip a head byte by byte
//
// Every command prints one JSON object or nothing, and ends by itself or on SIGTERM.
package main

import (
	"encoding/json"
	"fmt"
	"os"
)

func main() {
	commands := map[string]func([]string) error{
		"origin": origin, "proxy": proxy, "rate": rate, "stream": stream, "hold": hold,
	}
	if len(os.Args) < 2 || commands[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: benchtool origin|proxy|rate|stream|hold [flags]")
		os.Exit(2)
	}
	if err := commands[os.Args[1]](os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func report(result any) error {
	return json.NewEncoder(os.Stdout).Encode(result)
}
