//go:build tools

// Package tools pins the cert-manager release whose CRDs the test bed installs where clusterctl is tried.
package tools

import _ "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
