package main

import (
	"bufio"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

const head = "GET /projects HTTP/1.1\r\nHost: 127.0.0.1\r\n" + tag + ": bench\r\n"

// hold opens connections and keeps them: after one whole request each, or dripping a head that
// never ends. It prints how many it holds when all are there, and how many were closed on it when
// it is told to end.
func hold(arguments []string) error {
	flags := flag.NewFlagSet("hold", flag.ExitOnError)
	address := flags.String("address", "", "host:port")
	count := flags.Int("connections", 1000, "how many")
	drip := flags.Duration("drip", 0, "send one byte of a head this often; 0: one request, then idle")
	flags.Parse(arguments)
	held := make([]net.Conn, 0, *count)
	for i := 0; i < *count; i++ {
		connection, err := net.Dial("tcp", *address)
		if err != nil {
			return err
		}
		if *drip == 0 {
			if err := one(connection); err != nil {
				return err
			}
		} else if _, err := connection.Write([]byte(head)); err != nil {
			return err
		}
		held = append(held, connection)
	}
	if err := report(map[string]any{"held": len(held)}); err != nil {
		return err
	}
	closed := keep(held, *drip)
	return report(map[string]any{"closed": closed})
}

func one(connection net.Conn) error {
	if _, err := connection.Write([]byte(head + "\r\n")); err != nil {
		return err
	}
	response, err := http.ReadResponse(bufio.NewReader(connection), nil)
	if err != nil {
		return err
	}
	response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("answered %d", response.StatusCode)
	}
	return nil
}

// keep holds until SIGTERM. A connection on which the drip is refused is opened anew, as an
// attacker would.
func keep(held []net.Conn, drip time.Duration) int {
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGTERM, syscall.SIGINT)
	if drip == 0 {
		<-ended
		return 0
	}
	closed := 0
	ticker := time.NewTicker(drip / time.Duration(len(held)))
	for i := 0; ; i = (i + 1) % len(held) {
		select {
		case <-ended:
			return closed
		case <-ticker.C:
			if _, err := held[i].Write([]byte("x")); err != nil {
				closed++
				address := held[i].RemoteAddr().String()
				held[i].Close()
				if again, err := net.Dial("tcp", address); err == nil {
					again.Write([]byte(head))
					held[i] = again
				}
			}
		}
	}
}
