// Says on standard output how Go's net/http understood each request. Argument: the port, 0 for any.
package main

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
)

const minted = `{"token":"crs_peer","expiresAt":"2999-01-01T00:00:00Z"}`

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:"+os.Args[1])
	if err != nil {
		panic(err)
	}
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	var mutex sync.Mutex
	handler := func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if strings.HasPrefix(r.RequestURI, "/app/") {
			io.WriteString(w, minted)
			return
		}
		headers := [][2]string{{"host", hex.EncodeToString([]byte(r.Host))}}
		for name, values := range r.Header {
			for _, value := range values {
				headers = append(headers, [2]string{strings.ToLower(name), hex.EncodeToString([]byte(value))})
			}
		}
		line, _ := json.Marshal(map[string]any{
			"method": r.Method, "target": hex.EncodeToString([]byte(r.RequestURI)), "headers": headers,
			"body": hex.EncodeToString(body), "whole": err == nil,
		})
		mutex.Lock()
		fmt.Println(string(line))
		mutex.Unlock()
		w.Header().Set("X-Peer", "go")
		io.WriteString(w, "understood")
	}
	panic(http.Serve(listener, http.HandlerFunc(handler)))
}
