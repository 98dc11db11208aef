package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"net"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

const maxLoops = 64

// options are those of the command line.
type options struct {
	target  string
	address *unix.SockaddrInet4
	loops   int
	prefix  string // of node ids
	first   int    // the number of the first node
	profile string // file; "" for none
}

// parseFlags reads the command line. The error is one line for the user, or flag.ErrHelp.
func parseFlags(arguments []string) (options, error) {
	o := options{loops: 1, prefix: "envoy-", first: 1}
	set := flag.NewFlagSet("fleet", flag.ContinueOnError)
	set.SetOutput(io.Discard)
	set.Usage = func() {}
	set.Func("target", "", func(text string) (err error) {
		o.target = text
		o.address, err = resolve(text)
		return err
	})
	set.Func("loops", "", whole(&o.loops, 1, maxLoops))
	set.Func("first", "", whole(&o.first, 0, math.MaxInt32))
	set.Func("prefix", "", func(text string) error {
		o.prefix = text
		if len(text) > 200 || !utf8.ValidString(text) || strings.ContainsFunc(text, unicode.IsControl) {
			return errors.New("it must be UTF-8 of up to 200 bytes, without control characters")
		}
		return nil
	})
	set.Func("tls", "", func(text string) (err error) {
		secure, err = readTLS(text)
		return err
	})
	set.StringVar(&o.profile, "cpuprofile", "", "")
	err := set.Parse(arguments)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return o, err
	case err != nil && strings.HasPrefix(err.Error(), "flag provided but not defined: "):
		name := strings.TrimPrefix(err.Error(), "flag provided but not defined: ")
		return o, fmt.Errorf("there is no flag %s; there are -target, -loops, -prefix, -first, -tls, -cpuprofile and -h", name)
	case err != nil:
		return o, err
	case set.NArg() > 0:
		return o, fmt.Errorf("%q is not a flag; fleet takes flags only, and commands on standard input", set.Arg(0))
	case o.address == nil:
		return o, errors.New("-target is missing: the xDS server as HOST:PORT, as in -target 127.0.0.1:18000; see -h")
	}
	return o, nil
}

func whole(to *int, minimum, maximum int) func(string) error {
	return func(text string) error {
		n, err := strconv.Atoi(text)
		if err != nil || n < minimum || n > maximum {
			return fmt.Errorf("it must be a whole number from %d to %d", minimum, maximum)
		}
		*to = n
		return nil
	}
}

func resolve(target string) (*unix.SockaddrInet4, error) {
	host, number, err := net.SplitHostPort(target)
	if err != nil || host == "" || number == "" {
		return nil, errors.New("it must be HOST:PORT, like 127.0.0.1:18000")
	}
	port, err := strconv.Atoi(number)
	if err != nil || port < 1 || port > 65_535 {
		return nil, errors.New("the port must be a number from 1 to 65535")
	}
	address, err := net.ResolveIPAddr("ip4", host)
	if err != nil {
		return nil, fmt.Errorf("the host has no IPv4 address: %w", err)
	}
	return &unix.SockaddrInet4{Port: port, Addr: [4]byte(address.IP.To4())}, nil
}

// help returns the text of -h.
func help() string {
	var b strings.Builder
	b.WriteString(`fleet simulates thousands of Envoys that connect to one xDS server, and measures what they receive.

  fleet -target HOST:PORT [-loops N] [-prefix TEXT] [-first N] [-tls CERT,KEY,CA] [-cpuprofile FILE]

  -target HOST:PORT  the xDS server, over IPv4
  -loops N           threads for the proxies, 1 to 64; 1
  -prefix TEXT       the first part of node ids; envoy-
  -first N           the number at the end of the first node's id; 1. Proxies are numbered in the order of opening:
                     envoy-00001, envoy-00002 ... Two fleets at one server need different prefixes or different
                     numbers; otherwise a node has two streams
  -tls CERT,KEY,CA   mutual TLS with this certificate, its key and the authorities of the server, files in PEM; the
                     server's certificate must be for localhost
  -cpuprofile FILE   writes a profile of this program, for go tool pprof

It reads commands from standard input, one JSON object a line, and answers each with one line on standard output: with "ok",
and with "error" if a command failed. Times are in seconds unless a name says otherwise; points in time are nanoseconds of
CLOCK_MONOTONIC (in Python: time.monotonic_ns). The first line has its process id. It ends when its input ends, once it has
answered all commands.

Commands, and their keys beside cmd:

`)
	for _, v := range verbs {
		head := fmt.Sprintf("  %-12s %s", v.name, strings.Join(v.keys, " "))
		fmt.Fprintf(&b, "%s\n%15s%s\n", strings.TrimRight(head, " "), "", v.text)
	}
	b.WriteString("\nKeys, each with its default:\n\n")
	for _, k := range keys {
		fmt.Fprintf(&b, "  %-12s %s\n", k.name, k.text)
	}
	b.WriteString(`
An example: half of 1000 proxies stop to ACK once they are in sync, and then the model iris is switched to green:

  $ fleet -target 127.0.0.1:18000
  {"cmd":"open","n":500,"group":"mute"}
  {"cmd":"open","n":500}
  {"cmd":"wait_synced","group":"mute"}
  {"cmd":"wait_synced"}
  {"cmd":"behave","group":"mute","mute":true}
  {"cmd":"watch","name":"iris","contains":"iris/green"}
  {"cmd":"result","from_ns":0,"timeout":600}
`)
	return b.String()
}
