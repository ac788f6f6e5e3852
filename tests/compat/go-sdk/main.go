// A client that knows only Firecracker: its published SDK boots a machine on the program that it is told is firecracker, looks at
// it, changes it while it runs, and stops it. Each step that went well is a line; the first that did not ends it with status 1.
//
//	go-sdk FIRECRACKER FOLDER KERNEL INITRD DRIVE OTHER-DRIVE TAP
package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	sdk "github.com/firecracker-microvm/firecracker-go-sdk"
	"github.com/firecracker-microvm/firecracker-go-sdk/client/models"
	"github.com/sirupsen/logrus"
)

const deadline = 120 * time.Second

func must(step string, err error) {
	if err != nil {
		fmt.Printf("%s: %v\n", step, err)
		os.Exit(1)
	}
	fmt.Println(step)
}

func check(step string, condition bool, got interface{}) {
	var err error
	if !condition {
		err = fmt.Errorf("got %v", got)
	}
	must(step, err)
}

// Until the guest has said it on its console.
func waitForConsole(path, text string) error {
	for end := time.Now().Add(deadline); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if said, err := os.ReadFile(path); err == nil && strings.Contains(string(said), text) {
			return nil
		}
	}
	said, _ := os.ReadFile(path)
	return fmt.Errorf("the console says only %q", said)
}

// Until the guest has put so much into its balloon, and has said what else it has.
func waitForBalloon(ctx context.Context, m *sdk.Machine, mib int64) error {
	var stats models.BalloonStats
	var err error
	for end := time.Now().Add(deadline); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if stats, err = m.GetBalloonStats(ctx); err != nil {
			return err
		}
		if *stats.ActualMib == mib && *stats.ActualPages == 256*mib && *stats.TargetMib == mib && stats.TotalMemory > 0 && stats.FreeMemory > 0 {
			return nil
		}
	}
	return fmt.Errorf("its statistics are %v", stats)
}

func limiter(bytesPerSecond int64) *models.RateLimiter {
	return sdk.NewRateLimiter(
		sdk.TokenBucketBuilder{}.WithBucketSize(bytesPerSecond).WithRefillDuration(time.Second).WithInitialSize(bytesPerSecond).Build(),
		sdk.TokenBucketBuilder{}.WithBucketSize(1000).WithRefillDuration(time.Second).Build())
}

func config(folder, kernel, initrd, drive, tap string) sdk.Config {
	return sdk.Config{
		SocketPath:      filepath.Join(folder, "fc.sock"),
		LogPath:         filepath.Join(folder, "fc.log"),
		LogLevel:        "Debug",
		MetricsPath:     filepath.Join(folder, "metrics"),
		KernelImagePath: kernel,
		InitrdPath:      initrd,
		KernelArgs:      "console=ttyS0 quiet panic=-1 reboot=k",
		VMID:            "sdk-machine",
		Drives: sdk.NewDrivesBuilder("").AddDrive(drive, true, sdk.WithDriveID("data"), sdk.WithRateLimiter(*limiter(1 << 30))).
			Build()[:1],
		NetworkInterfaces: sdk.NetworkInterfaces{{
			StaticConfiguration: &sdk.StaticNetworkConfiguration{MacAddress: "06:00:ac:10:00:02", HostDevName: tap},
			InRateLimiter:       limiter(1 << 30),
		}},
		VsockDevices: []sdk.VsockDevice{{ID: "vsock", CID: 3, Path: filepath.Join(folder, "vsock.sock")}},
		MachineCfg:   models.MachineConfiguration{VcpuCount: sdk.Int64(1), MemSizeMib: sdk.Int64(192), Smt: sdk.Bool(false)},
	}
}

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), 4*deadline)
	defer cancel()
	firecracker, folder, kernel, initrd, drive, other, tap :=
		os.Args[1], os.Args[2], os.Args[3], os.Args[4], os.Args[5], os.Args[6], os.Args[7]
	console := filepath.Join(folder, "console")
	out, err := os.Create(console)
	must("console", err)

	logger := logrus.New()
	logger.SetLevel(logrus.WarnLevel)
	cmd := exec.CommandContext(ctx, firecracker, "--api-sock", filepath.Join(folder, "fc.sock"), "--id", "sdk-machine")
	cmd.Stdout, cmd.Stderr = out, os.Stderr
	m, err := sdk.NewMachine(ctx, config(folder, kernel, initrd, drive, tap), sdk.WithProcessRunner(cmd),
		sdk.WithLogger(logrus.NewEntry(logger)))
	must("a machine is described", err)
	m.Handlers.FcInit = m.Handlers.FcInit.AppendAfter(sdk.CreateMachineHandlerName, sdk.NewCreateBalloonHandler(4, true, 1))
	must("it starts", m.Start(ctx))

	info, err := m.DescribeInstanceInfo(ctx)
	must("it describes itself", err)
	check("its state is Running", *info.State == "Running" && *info.ID == "sdk-machine" && *info.AppName == "Firecracker", info)
	version, err := m.GetFirecrackerVersion(ctx)
	must("it has a version", err)
	check("its version is Firecracker's", strings.HasPrefix(version, "1."), version)
	check("its configuration is what was asked for", *m.Cfg.MachineCfg.MemSizeMib == 192 && *m.Cfg.MachineCfg.VcpuCount == 1, m.Cfg.MachineCfg)
	must("the guest reads its drive", waitForConsole(console, "drive: first"))
	must("the guest has its interface", waitForConsole(console, "mac: 06:00:ac:10:00:02"))

	must("it pauses", m.PauseVM(ctx))
	info, err = m.DescribeInstanceInfo(ctx)
	check("its state is Paused", err == nil && *info.State == "Paused", info)
	must("it resumes", m.ResumeVM(ctx))

	must("the interface's limits change", m.UpdateGuestNetworkInterfaceRateLimit(ctx, "1", sdk.RateLimiterSet{OutRateLimiter: limiter(1 << 20)}))
	must("the drive's file changes", m.UpdateGuestDrive(ctx, "data", other))
	must("the guest reads its new drive", waitForConsole(console, "drive: second"))
	check("an unknown drive is refused", m.UpdateGuestDrive(ctx, "nothing", other) != nil, nil)

	balloon, err := m.GetBalloonConfig(ctx)
	must("it has a balloon", err)
	check("the balloon is as it was made", *balloon.AmountMib == 4 && *balloon.DeflateOnOom && balloon.StatsPollingIntervals == 1, balloon)
	must("the balloon's size changes", m.UpdateBalloon(ctx, 8))
	must("the guest fills its balloon", waitForBalloon(ctx, m, 8))
	must("the statistics' interval changes", m.UpdateBalloonStats(ctx, 60))
	check("the statistics stay on", m.UpdateBalloonStats(ctx, 0) != nil, nil)

	must("it is told to stop", m.StopVMM())
	must("it has stopped", m.Wait(ctx))
}
