package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// secure is the TLS of all connections; nil for plain text.
var secure *tls.Config

// readTLS reads CERT,KEY,CA: files in PEM. The server's certificate must be for localhost.
func readTLS(text string) (*tls.Config, error) {
	files := strings.Split(text, ",")
	if len(files) != 3 {
		return nil, errors.New("it must be CERT,KEY,CA: three files in PEM")
	}
	pair, err := tls.LoadX509KeyPair(files[0], files[1])
	if err != nil {
		return nil, err
	}
	authorities, err := os.ReadFile(files[2])
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(authorities) {
		return nil, errors.New("the third file has no certificate")
	}
	return &tls.Config{
		Certificates: []tls.Certificate{pair}, RootCAs: pool, ServerName: "localhost",
		NextProtos: []string{"h2"}, MinVersion: tls.VersionTLS13,
	}, nil
}

// dialTLS returns one end of a socket pair. The other end is connected with the server by two goroutines, which do the TLS. So
// the loops stay as they are; it costs the simulator CPU, and the server nothing.
func dialTLS(address unix.Sockaddr) (int, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	file := os.NewFile(uintptr(fds[1]), "loop")
	inner, err := net.FileConn(file)
	file.Close()
	if err != nil {
		unix.Close(fds[0])
		return -1, err
	}
	to := address.(*unix.SockaddrInet4)
	target := net.TCPAddr{IP: net.IP(to.Addr[:]), Port: to.Port}
	go bridge(inner, target)
	return fds[0], nil
}

func bridge(inner net.Conn, target net.TCPAddr) {
	defer inner.Close()
	plain, err := net.DialTCP("tcp4", nil, &target)
	if err != nil {
		return
	}
	defer plain.Close()
	plain.SetLinger(1)
	outer := tls.Client(plain, secure)
	if outer.Handshake() != nil {
		return
	}
	go func() {
		io.Copy(outer, inner)
		plain.Close()
	}()
	io.Copy(inner, outer)
}
