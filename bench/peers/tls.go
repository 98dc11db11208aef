package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"os"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
)

// tlsOptions returns the options for mutual TLS with the files CERT,KEY,CA; none for "". Sessions can't be resumed, as with Turnout.
func tlsOptions(text string) ([]grpc.ServerOption, error) {
	if text == "" {
		return nil, nil
	}
	files := strings.Split(text, ",")
	if len(files) != 3 {
		return nil, errors.New("--tls must be CERT,KEY,CA: three files in PEM")
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
	return []grpc.ServerOption{grpc.Creds(credentials.NewTLS(&tls.Config{
		Certificates: []tls.Certificate{pair}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert,
		MinVersion: tls.VersionTLS13, SessionTicketsDisabled: true,
	}))}, nil
}
