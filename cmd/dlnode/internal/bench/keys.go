package bench

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/big"
	"time"
)

// keys are a certificate for one world, which all of its ranks show and trust. It
// never lies on a disk.
type keys struct {
	Certificate []byte `json:"certificate"` // DER
	Key         []byte `json:"key"`         // PKCS #8
}

// certified is the name in the certificate: ranks are known by their key, not by where they are.
const certified = "dlnode-bench"

func newKeys() (*keys, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{certified}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: time.Now().Add(24 * time.Hour), // clocks may differ
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	k := &keys{}
	if k.Certificate, err = x509.CreateCertificate(rand.Reader, template, template, key.Public(), key); err != nil {
		return nil, err
	}
	k.Key, err = x509.MarshalPKCS8PrivateKey(key)
	return k, err
}

// config is for both ends; nil, for plain TCP, of no keys.
func (k *keys) config() (*tls.Config, error) {
	if k == nil {
		return nil, nil
	}
	leaf, err := x509.ParseCertificate(k.Certificate)
	if err != nil {
		return nil, fmt.Errorf("the certificate of the world: %w", err)
	}
	key, err := x509.ParsePKCS8PrivateKey(k.Key)
	if err != nil {
		return nil, fmt.Errorf("the key of the world: %w", err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	return &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{k.Certificate}, PrivateKey: key, Leaf: leaf}},
		RootCAs:      roots, ServerName: certified, MinVersion: tls.VersionTLS13,
	}, nil
}
