package main

import (
	"crypto/tls"
	"crypto/x509"
	"flag"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
)

// proxy is the smallest program of Go's standard library that does the same forwarding: no tokens,
// no log, no metrics.
func proxy(arguments []string) error {
	flags := flag.NewFlagSet("proxy", flag.ExitOnError)
	listen := flags.String("listen", "127.0.0.1:0", "address")
	upstream := flags.String("upstream", "", "base URL")
	ca := flags.String("ca", "", "PEM file of the authority to trust")
	flags.Parse(arguments)
	target, err := url.Parse(*upstream)
	if err != nil {
		return err
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = 1024
	transport.ForceAttemptHTTP2 = false
	transport.TLSNextProto = map[string]func(string, *tls.Conn) http.RoundTripper{}
	if *ca != "" {
		pem, err := os.ReadFile(*ca)
		if err != nil {
			return err
		}
		pool := x509.NewCertPool()
		pool.AppendCertsFromPEM(pem)
		transport.TLSClientConfig = &tls.Config{RootCAs: pool}
	}
	handler := &httputil.ReverseProxy{
		Transport: transport,
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Header.Set("Authorization", "Bearer crs_yardstick")
			r.Out.Header.Set("x-icr-api-version", "2023-06-16")
		},
	}
	return http.ListenAndServe(*listen, handler)
}
