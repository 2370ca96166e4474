package main

import (
	"flag"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const piece = 64 * 1024

// origin answers as the API would: a token for every mint, small JSON, streams of a given length,
// and uploads that are read to their end before they are answered.
func origin(arguments []string) error {
	flags := flag.NewFlagSet("origin", flag.ExitOnError)
	listen := flags.String("listen", "127.0.0.1:0", "address")
	cert := flags.String("cert", "", "PEM file; with -key: TLS")
	key := flags.String("key", "", "PEM file")
	flags.Parse(arguments)
	server := &http.Server{Addr: *listen, Handler: http.HandlerFunc(answer)}
	if *cert != "" {
		return server.ListenAndServeTLS(*cert, *key)
	}
	return server.ListenAndServe()
}

func answer(w http.ResponseWriter, r *http.Request) {
	switch {
	case strings.HasSuffix(r.URL.Path, "/accessTokens"):
		installation := strings.Split(r.URL.Path, "/")[3]
		expires := time.Now().Add(2 * time.Hour).UTC().Format(time.RFC3339)
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"token":"crs_%s","expiresAt":"%s","installationId":"%s"}`,
			strings.Repeat("0", 48), expires, installation)
	case strings.HasPrefix(r.URL.Path, "/down/"):
		length, _ := strconv.ParseInt(strings.TrimPrefix(r.URL.Path, "/down/"), 10, 64)
		w.Header().Set("Content-Length", strconv.FormatInt(length, 10))
		data := make([]byte, piece)
		for left := length; left > 0; {
			n, err := w.Write(data[:min(left, piece)])
			if err != nil {
				return
			}
			left -= int64(n)
		}
	default:
		length, _ := io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"received":%d}`, length)
	}
}
