//go:build unix

package e2e

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// The manifests for Kubernetes start nodes with flags that this program has.
func TestTheManifestsFlagsExist(t *testing.T) {
	manifests, err := os.ReadFile("../deploy/k8s/dlnode.yaml")
	if err != nil {
		t.Fatal(err)
	}
	help, err := exec.Command(program, "run", "--help").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, help)
	}
	flags := regexp.MustCompile(`(?m)^ +- (--[a-z-]+)=`).FindAllStringSubmatch(string(manifests), -1)
	if len(flags) == 0 {
		t.Fatal("the manifests use no flags")
	}
	for _, m := range flags {
		if !strings.Contains(string(help), m[1]+" ") {
			t.Errorf("the manifests use %s, which run doesn't know", m[1])
		}
	}
}
