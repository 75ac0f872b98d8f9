// Command kube is a whole Kubernetes in one binary: each control-plane component, the kubelet and kubectl, chosen by
// the first argument. The harness of the acceptance tests builds it once and starts one process of it per component.
//
//	kube kubectl get pods
//	kube kube-apiserver --etcd-dir=DIRECTORY [kube-apiserver flags]
//
// The API server carries its own etcd: a single member on a unix socket in DIRECTORY, without fsync, for tests only.
package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/embed"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"          // --logging-format=json
	_ "k8s.io/component-base/metrics/prometheus/clientgo" // client-go's metrics, as in the upstream binaries
	_ "k8s.io/component-base/metrics/prometheus/version"
	kubectl "k8s.io/kubectl/pkg/cmd"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"
)

// etcdStart is how long etcd may take to become ready.
const etcdStart = time.Minute

var components = map[string]func() *cobra.Command{
	"kube-apiserver":          apiserver.NewAPIServerCommand,
	"kube-controller-manager": controllermanager.NewControllerManagerCommand,
	"kube-scheduler":          func() *cobra.Command { return scheduler.NewSchedulerCommand() },
	"kubectl":                 kubectl.NewDefaultKubectlCommand,
	"kubelet":                 func() *cobra.Command { return kubelet.NewKubeletCommand(context.Background()) },
}

func main() {
	status, err := run()
	if err != nil {
		fmt.Fprintln(os.Stderr, "kube:", err)
	}
	os.Exit(status)
}

func run() (int, error) {
	if len(os.Args) < 2 {
		return 64, errors.New("usage: kube COMPONENT [flags]")
	}
	// Each component reads its flags from os.Args.
	os.Args = os.Args[1:]
	component, known := components[os.Args[0]]
	if !known {
		return 64, fmt.Errorf("no component is named %q", os.Args[0])
	}
	if os.Args[0] == "kube-apiserver" {
		etcd, err := startEtcd()
		if err != nil {
			return 1, fmt.Errorf("etcd: %w", err)
		}
		defer etcd.Close()
	}
	return cli.Run(component()), nil
}

// startEtcd runs etcd in the folder of --etcd-dir, and replaces that flag by one that leads the API server to it.
func startEtcd() (*embed.Etcd, error) {
	const flag = "--etcd-dir="
	at := slices.IndexFunc(os.Args, func(arg string) bool { return strings.HasPrefix(arg, flag) })
	if at < 0 {
		return nil, errors.New("kube-apiserver needs " + flag + "DIRECTORY")
	}
	dir, err := filepath.Abs(strings.TrimPrefix(os.Args[at], flag))
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	config := etcdConfig(dir)
	os.Args[at] = "--etcd-servers=" + config.ListenClientUrls[0].String()
	etcd, err := embed.StartEtcd(config)
	if err != nil {
		return nil, err
	}
	select {
	case <-etcd.Server.ReadyNotify():
		return etcd, nil
	case err := <-etcd.Err():
		return nil, err
	case <-time.After(etcdStart):
		return nil, fmt.Errorf("not ready within %s, see %s", etcdStart, config.LogOutputs[0])
	}
}

func etcdConfig(dir string) *embed.Config {
	config := embed.NewConfig()
	config.Dir = filepath.Join(dir, "data")
	config.LogLevel = "warn"
	config.LogOutputs = []string{filepath.Join(dir, "etcd.log")}
	// Not the default here: zero logs every request as slow.
	config.WarningUnaryRequestDuration = time.Second
	config.UnsafeNoFsync = true
	config.ListenClientUrls = []url.URL{{Scheme: "unix", Path: filepath.Join(dir, "client.sock")}}
	// etcd takes only host:port for these; a single member never dials them.
	nobody := []url.URL{{Scheme: "http", Host: "127.0.0.1:0"}}
	config.AdvertiseClientUrls, config.ListenPeerUrls, config.AdvertisePeerUrls = nobody, nobody, nobody
	config.InitialCluster = config.InitialClusterFromName(config.Name)
	return config
}
