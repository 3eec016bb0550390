package k8s

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/dlnode/dlnode/job"
)

type labels map[string]string

type meta struct {
	Name   string `yaml:"name"`
	Labels labels `yaml:"labels"`
}

type header struct {
	APIVersion string `yaml:"apiVersion"`
	Kind       string `yaml:"kind"`
	Metadata   meta   `yaml:"metadata"`
}

type service struct {
	header `yaml:",inline"`
	Spec   struct {
		ClusterIP                string `yaml:"clusterIP"`
		PublishNotReadyAddresses bool   `yaml:"publishNotReadyAddresses"`
		Selector                 labels `yaml:"selector"`
		Ports                    []struct {
			Name     string `yaml:"name"`
			Port     int    `yaml:"port"`
			Protocol string `yaml:"protocol"`
		} `yaml:"ports"`
	} `yaml:"spec"`
}

type configMap struct {
	header `yaml:",inline"`
	Data   map[string]string `yaml:"data"`
}

type selector struct {
	MatchLabels labels `yaml:"matchLabels"`
}

type statefulSet struct {
	header `yaml:",inline"`
	Spec   struct {
		ServiceName         string   `yaml:"serviceName"`
		Replicas            int      `yaml:"replicas"`
		PodManagementPolicy string   `yaml:"podManagementPolicy"`
		Selector            selector `yaml:"selector"`
		Template            struct {
			Metadata meta    `yaml:"metadata"`
			Spec     podSpec `yaml:"spec"`
		} `yaml:"template"`
		VolumeClaimTemplates []struct {
			Metadata meta `yaml:"metadata"`
			Spec     struct {
				AccessModes []string  `yaml:"accessModes"`
				Resources   resources `yaml:"resources"`
			} `yaml:"spec"`
		} `yaml:"volumeClaimTemplates"`
	} `yaml:"spec"`
}

type podSpec struct {
	TerminationGracePeriodSeconds int  `yaml:"terminationGracePeriodSeconds"`
	EnableServiceLinks            bool `yaml:"enableServiceLinks"`
	AutomountServiceAccountToken  bool `yaml:"automountServiceAccountToken"`
	SecurityContext               struct {
		RunAsNonRoot   bool `yaml:"runAsNonRoot"`
		RunAsUser      int  `yaml:"runAsUser"`
		RunAsGroup     int  `yaml:"runAsGroup"`
		FSGroup        int  `yaml:"fsGroup"`
		SeccompProfile struct {
			Type string `yaml:"type"`
		} `yaml:"seccompProfile"`
	} `yaml:"securityContext"`
	Affinity struct {
		PodAntiAffinity struct {
			Preferred []struct {
				Weight          int `yaml:"weight"`
				PodAffinityTerm struct {
					TopologyKey   string   `yaml:"topologyKey"`
					LabelSelector selector `yaml:"labelSelector"`
				} `yaml:"podAffinityTerm"`
			} `yaml:"preferredDuringSchedulingIgnoredDuringExecution"`
		} `yaml:"podAntiAffinity"`
	} `yaml:"affinity"`
	Containers []container `yaml:"containers"`
	Volumes    []struct {
		Name      string `yaml:"name"`
		ConfigMap struct {
			Name string `yaml:"name"`
		} `yaml:"configMap"`
		Secret struct {
			SecretName  string `yaml:"secretName"`
			DefaultMode int    `yaml:"defaultMode"`
		} `yaml:"secret"`
	} `yaml:"volumes"`
}

type container struct {
	Name            string   `yaml:"name"`
	Image           string   `yaml:"image"`
	ImagePullPolicy string   `yaml:"imagePullPolicy"`
	Args            []string `yaml:"args"`
	Env             []struct {
		Name      string `yaml:"name"`
		Value     string `yaml:"value"`
		ValueFrom struct {
			FieldRef struct {
				FieldPath string `yaml:"fieldPath"`
			} `yaml:"fieldRef"`
		} `yaml:"valueFrom"`
	} `yaml:"env"`
	Ports []struct {
		Name          string `yaml:"name"`
		ContainerPort int    `yaml:"containerPort"`
		Protocol      string `yaml:"protocol"`
	} `yaml:"ports"`
	ReadinessProbe struct {
		TCPSocket struct {
			Port string `yaml:"port"`
		} `yaml:"tcpSocket"`
		PeriodSeconds int `yaml:"periodSeconds"`
	} `yaml:"readinessProbe"`
	Resources       resources `yaml:"resources"`
	SecurityContext struct {
		AllowPrivilegeEscalation bool `yaml:"allowPrivilegeEscalation"`
		ReadOnlyRootFilesystem   bool `yaml:"readOnlyRootFilesystem"`
		Capabilities             struct {
			Drop []string `yaml:"drop"`
		} `yaml:"capabilities"`
	} `yaml:"securityContext"`
	VolumeMounts []struct {
		Name      string `yaml:"name"`
		MountPath string `yaml:"mountPath"`
		ReadOnly  bool   `yaml:"readOnly"`
	} `yaml:"volumeMounts"`
}

type resources struct {
	Requests map[string]string `yaml:"requests"`
	Limits   map[string]string `yaml:"limits"`
}

// manifests is dlnode.yaml.
type manifests struct {
	service     service
	configMap   configMap
	statefulSet statefulSet
}

// decode reads a stream of documents, strictly.
func decode(data []byte) (m manifests, err error) {
	kinds := map[string]any{"Service": &m.service, "ConfigMap": &m.configMap, "StatefulSet": &m.statefulSet}
	for _, document := range bytes.Split(data, []byte("\n---\n")) {
		var h header
		if err := yaml.Unmarshal(document, &h); err != nil {
			return m, err
		}
		target, ok := kinds[h.Kind]
		if !ok {
			return m, fmt.Errorf("a second or unknown document of kind %q", h.Kind)
		}
		delete(kinds, h.Kind)
		strict := yaml.NewDecoder(bytes.NewReader(document))
		strict.KnownFields(true)
		if err := strict.Decode(target); err != nil {
			return m, fmt.Errorf("%s: %w", h.Kind, err)
		}
	}
	if len(kinds) > 0 {
		return m, fmt.Errorf("no document of kind %v", slices.Sorted(maps.Keys(kinds)))
	}
	return m, nil
}

func load(t *testing.T) manifests {
	t.Helper()
	data, err := os.ReadFile("dlnode.yaml")
	if err != nil {
		t.Fatal(err)
	}
	m, err := decode(data)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestTheManifestsAreStrictlyWhatTheAPIKnows(t *testing.T) {
	m := load(t)
	for _, c := range []struct{ what, got, want string }{
		{"service", m.service.APIVersion, "v1"},
		{"config map", m.configMap.APIVersion, "v1"},
		{"stateful set", m.statefulSet.APIVersion, "apps/v1"},
	} {
		if c.got != c.want {
			t.Errorf("apiVersion of the %s is %q, want %q", c.what, c.got, c.want)
		}
	}
}

func TestAMisspeltFieldIsFound(t *testing.T) {
	data, err := os.ReadFile("dlnode.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, field := range []string{"podManagementPolicy", "publishNotReadyAddresses", "readinessProbe", "mountPath"} {
		if _, err := decode(bytes.Replace(data, []byte(field), []byte(field+"s"), 1)); err == nil {
			t.Errorf("%ss instead of %s was accepted", field, field)
		}
	}
}

func TestNodesFindEachOtherThroughTheService(t *testing.T) {
	m := load(t)
	s, set := m.service, m.statefulSet
	pod := set.Spec.Template.Metadata.Labels
	switch {
	case s.Spec.ClusterIP != "None" || !s.Spec.PublishNotReadyAddresses:
		t.Error("the service must be headless and publish addresses before readiness")
	case set.Spec.ServiceName != s.Metadata.Name:
		t.Errorf("the set's service is %q, want %q", set.Spec.ServiceName, s.Metadata.Name)
	case !maps.Equal(s.Spec.Selector, pod) || !maps.Equal(set.Spec.Selector.MatchLabels, pod):
		t.Errorf("selectors %v and %v, pods have %v", s.Spec.Selector, set.Spec.Selector.MatchLabels, pod)
	}
	c := onlyContainer(t, m)
	for i, p := range s.Spec.Ports {
		if q := c.Ports[i]; p.Name != q.Name || p.Port != q.ContainerPort || p.Protocol != q.Protocol {
			t.Errorf("the service's port %v is not the container's %v", p, q)
		}
	}
	port := map[string]int{}
	for _, p := range s.Spec.Ports {
		port[p.Name] = p.Port
	}
	for flag, want := range map[string]string{
		"bind": fmt.Sprintf("$(POD_IP):%d", port["gossip"]),
		"grpc": fmt.Sprintf("$(POD_IP):%d", port["grpc"]),
		"join": fmt.Sprintf("%s.$(POD_NAMESPACE).svc:%d", s.Metadata.Name, port["gossip"]),
		"name": "$(POD_NAME)",
	} {
		if got := flags(c)[flag]; got != want {
			t.Errorf("--%s is %q, want %q", flag, got, want)
		}
	}
}

func TestTheJobOfTheConfigMapIsAJob(t *testing.T) {
	m := load(t)
	c := onlyContainer(t, m)
	file := path.Base(c.Args[len(c.Args)-1])
	j, err := job.Parse(file, []byte(m.configMap.Data[file]))
	if err != nil {
		t.Fatal(err)
	}
	if n := m.statefulSet.Spec.Replicas; j.MinNodes > n || j.Batch.Microbatches() < n {
		t.Errorf("%d replicas, but min_nodes is %d and a step has %d microbatches", n, j.MinNodes, j.Batch.Microbatches())
	}
}

func TestEverythingMountedIsThereAndEveryPathIsMounted(t *testing.T) {
	m := load(t)
	c := onlyContainer(t, m)
	volumes := map[string]bool{}
	for _, v := range m.statefulSet.Spec.Template.Spec.Volumes {
		volumes[v.Name] = v.ConfigMap.Name == m.configMap.Metadata.Name || v.Secret.SecretName != ""
	}
	for _, v := range m.statefulSet.Spec.VolumeClaimTemplates {
		volumes[v.Metadata.Name] = true
	}
	mounted := func(file string) bool {
		for _, v := range c.VolumeMounts {
			if volumes[v.Name] && strings.HasPrefix(file, v.MountPath+"/") {
				return true
			}
		}
		return false
	}
	f := flags(c)
	for _, file := range []string{f["dir"], f["secret-file"], c.Args[len(c.Args)-1], environment(c)["DLNODE_DATA"]} {
		if !mounted(file) {
			t.Errorf("%q lies on no volume", file)
		}
	}
}

func TestANodeLeavesBySIGTERMAlone(t *testing.T) {
	pod := load(t).statefulSet.Spec.Template.Spec
	if pod.TerminationGracePeriodSeconds < 10 {
		t.Errorf("%d s are too short for a step and a checkpoint", pod.TerminationGracePeriodSeconds)
	}
	if p := load(t).statefulSet.Spec.PodManagementPolicy; p != "Parallel" {
		t.Errorf("podManagementPolicy is %q: nodes would start one after another", p)
	}
}

// onlyContainer returns the pod's one container.
func onlyContainer(t *testing.T, m manifests) container {
	t.Helper()
	containers := m.statefulSet.Spec.Template.Spec.Containers
	if len(containers) != 1 {
		t.Fatalf("%d containers, want 1", len(containers))
	}
	return containers[0]
}

// flags returns the values of --flag=value arguments.
func flags(c container) map[string]string {
	values := map[string]string{}
	for _, arg := range c.Args {
		if name, value, ok := strings.Cut(strings.TrimPrefix(arg, "--"), "="); ok {
			values[name] = value
		}
	}
	return values
}

func environment(c container) map[string]string {
	values := map[string]string{}
	for _, e := range c.Env {
		values[e.Name] = e.Value
	}
	return values
}
