package main

import (
	"flag"
	"fmt"
	"io"
	"net/http"
	"sort"
	"sync"
	"time"
)

const tag = "X-ICR-Installation-Id"

func client(connections int) *http.Client {
	return &http.Client{Transport: &http.Transport{
		MaxIdleConnsPerHost: connections, MaxConnsPerHost: connections, DisableCompression: true,
	}}
}

func ask(client *http.Client, method, url string, body io.Reader) (int64, error) {
	request, err := http.NewRequest(method, url, body)
	if err != nil {
		return 0, err
	}
	if whole, ok := body.(*zeros); ok {
		request.ContentLength = whole.left
	}
	request.Header.Set(tag, "bench")
	response, err := client.Do(request)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	length, err := io.Copy(io.Discard, response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("answered %d", response.StatusCode)
	}
	return length, err
}

// rate sends requests at a constant rate whatever becomes of them. A latency is counted from when
// the request was due and not from when it could be sent, so that a stall is not left out
// ("coordinated omission").
func rate(arguments []string) error {
	flags := flag.NewFlagSet("rate", flag.ExitOnError)
	url := flags.String("url", "", "what to ask for")
	perSecond := flags.Int("rate", 500, "requests a second")
	seconds := flags.Float64("seconds", 10, "how long")
	warmup := flags.Float64("warmup", 1, "seconds of it that are not counted")
	connections := flags.Int("connections", 32, "at the same time")
	flags.Parse(arguments)
	caller := client(*connections)
	interval := time.Second / time.Duration(*perSecond)
	total := int(*seconds * float64(*perSecond))
	skipped := int(*warmup * float64(*perSecond))
	latencies := make([]time.Duration, total)
	failures := 0
	var lock sync.Mutex
	var group sync.WaitGroup
	began := time.Now()
	for i := 0; i < total; i++ {
		due := began.Add(time.Duration(i) * interval)
		time.Sleep(time.Until(due))
		group.Add(1)
		go func(i int, due time.Time) {
			defer group.Done()
			_, err := ask(caller, "GET", *url, nil)
			latencies[i] = time.Since(due)
			if err != nil {
				lock.Lock()
				failures++
				lock.Unlock()
			}
		}(i, due)
	}
	group.Wait()
	counted := latencies[skipped:]
	sort.Slice(counted, func(a, b int) bool { return counted[a] < counted[b] })
	at := func(share float64) float64 {
		return counted[int(share*float64(len(counted)-1))].Seconds() * 1000
	}
	return report(map[string]any{
		"requests": len(counted), "failures": failures,
		"p50_ms": at(0.5), "p90_ms": at(0.9), "p99_ms": at(0.99), "max_ms": at(1),
	})
}

// zeros is a body of a given length.
type zeros struct{ left int64 }

func (z *zeros) Read(p []byte) (int, error) {
	if z.left == 0 {
		return 0, io.EOF
	}
	n := min(int64(len(p)), z.left)
	z.left -= n
	return int(n), nil
}

// stream moves one long body and says how long it took.
func stream(arguments []string) error {
	flags := flag.NewFlagSet("stream", flag.ExitOnError)
	base := flags.String("url", "", "base URL")
	direction := flags.String("direction", "down", "up or down")
	length := flags.Int64("bytes", 1<<30, "of the body")
	flags.Parse(arguments)
	caller := client(1)
	began := time.Now()
	var moved int64
	var err error
	if *direction == "down" {
		moved, err = ask(caller, "GET", fmt.Sprintf("%s/down/%d", *base, *length), nil)
	} else {
		_, err = ask(caller, "PUT", *base+"/up", &zeros{*length})
		moved = *length
	}
	if err == nil && moved != *length {
		err = fmt.Errorf("moved %d bytes of %d", moved, *length)
	}
	if err != nil {
		return err
	}
	return report(map[string]any{"bytes": moved, "seconds": time.Since(began).Seconds()})
}
