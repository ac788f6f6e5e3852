# shellcheck shell=sh
# The emulated host's kernel and initramfs, made from Debian's kernel package and cached. Read by kvmhost, whose `kernel`,
# `cache`, `libexec`, `kernel_files`, `need` and `fail` it uses; it sets `entry`.
# shellcheck disable=SC2154

# In the initramfs, loaded at once, before the root file system is there; in two groups because they load in parallel.
base_modules="virtio_net 9pnet_virtio 9p overlay"
kvm_modules="kvm-amd"
# In /lib/modules inside, loaded when something asks for them.
more_modules="tun tap bridge veth dummy macvlan vhost_net vhost_vsock vsock_loopback vmw_vsock_virtio_transport loop
	virtio_blk virtio_mmio virtio_balloon virtio_mem virtio_pmem virtio-rng virtio_scsi nbd ext4 erofs squashfs xfs fuse
	button qemu_fw_cfg pvpanic-mmio zram nf_tables nf_nat nft_chain_nat nft_masq nft_nat nft_redir nft_ct nft_limit
	nft_log nft_meta_bridge nft_reject nft_reject_inet nft_reject_ipv4 nft_fib_inet nft_compat nft_numgen nft_hash nf_conntrack_netlink xt_conntrack
	xt_MASQUERADE xt_addrtype xt_comment xt_mark xt_nat xt_tcpudp ip_tables iptable_filter iptable_nat ip6_tables
	ip6table_filter ip6table_nat br_netfilter sch_tbf sch_ingress sch_fq_codel cls_u32 act_police act_mirred msr"

make_initramfs() { # TREE RELEASE STAGE TARGET
	mkdir -p "$3/bin" "$3/modules/base" "$3/modules/kvm"
	cp "$(command -v busybox)" "$3/bin/busybox"
	busybox --list | while read -r applet; do
		[ "$applet" = busybox ] || ln -s busybox "$3/bin/$applet"
	done
	cp "$libexec/kvmhost-init" "$3/init"
	cp "$libexec/kvmhost-stage-run" "$3/stage-run"
	cp "$libexec/kvmhost-stage-up" "$3/stage-up"
	chmod 755 "$3/init"
	n=100
	for group in base kvm; do
		case $group in base) wanted=$base_modules ;; kvm) wanted=$kvm_modules ;; esac
		for module in $wanted; do
			for file in $(module_files "$1" "$2" "$module"); do
				name=${file##*/}
				set -- "$1" "$2" "$3" "$4" "$3"/modules/*/*-"$name"
				[ -e "$5" ] && continue
				cp "$file" "$3/modules/$group/$n-$name"
				n=$((n + 1))
			done
		done
	done
	(cd "$3" && find . | LC_ALL=C sort | cpio --quiet -o -H newc --owner 0:0) >"$4"
}

module_files() { # TREE RELEASE MODULE: it and what it needs, in load order
	modprobe -d "$1" -S "$2" --show-depends "$3" 2>/dev/null | sed -n 's/^insmod \([^ ]*\).*/\1/p'
}

# Fills ENTRY with vmlinux, initramfs.cpio and lib/modules.
make_entry() { # ENTRY PACKAGE
	need dpkg-deb dpkg
	mkdir "$1/deb"
	(cd "$1/deb" && apt-get -qq -o APT::Sandbox::User=root download "$2" >&2) ||
		fail 125 "cannot download $2: see above, or try apt-get update"
	dpkg-deb -x "$1"/deb/*.deb "$1/deb/root"
	release=$(ls "$1/deb/root/lib/modules")
	extract_vmlinux "$1/deb/root/boot/vmlinuz-$release" "$1/vmlinux" || fail 125 "cannot take $2 apart"
	depmod -b "$1/deb/root" "$release"
	# shellcheck disable=SC2086 # words
	for module in $base_modules $kvm_modules $more_modules; do
		for file in $(module_files "$1/deb/root" "$release" "$module"); do
			target=$1/${file#"$1/deb/root/"}
			target=${target%.xz}
			target=${target%.zst}
			[ -e "$target" ] && continue
			mkdir -p "${target%/*}"
			copy_module "$file" "$target" || fail 125 "cannot copy module $file"
		done
	done
	cp "$1/deb/root/lib/modules/$release"/modules.builtin* "$1/deb/root/lib/modules/$release/modules.order" \
		"$1/lib/modules/$release/"
	depmod -b "$1" "$release"
	make_initramfs "$1" "$release" "$1/stage" "$1/initramfs.cpio"
	echo "$release" >"$1/release"
	rm -rf "$1/deb" "$1/stage"
}

# Sets `entry`, the folder with the boot files, making it when it is not there. It is named after the kernel's version
# and what makes them, made aside and renamed: nobody sees a half of one, and of two makers one wins.
find_entry() {
	own=$(cat "$kernel_files" "$libexec/kvmhost-boot.sh" "$libexec/kvmhost-init" "$libexec/kvmhost-stage-run" \
		"$libexec/kvmhost-stage-up" | sha256sum | cut -c1-16)
	mkdir -p "$cache"
	need apt-cache apt
	find_kernel_package "$kernel" "$cache" || fail 125 "Debian's package $kernel is not in apt's lists: apt-get update"
	entry=$cache/$version-$own
	[ -d "$entry" ] && touch -c "$entry" && return
	need cpio cpio
	need depmod kmod
	need busybox busybox-static
	busybox --list >/dev/null 2>&1 || fail 125 "busybox does not run here: apt-get install busybox-static"
	making=$(mktemp -d "$cache/making-XXXXXX")
	trap 'rm -rf "$making"' EXIT
	trap 'exit 130' HUP INT TERM
	echo "kvmhost: making the boot files from $package $version (once)" >&2
	make_entry "$making" "$package"
	chmod 755 "$making"
	# What nobody has used for a month, and what a maker that was killed left.
	find "$cache" -mindepth 1 -maxdepth 1 -type d \( -mtime +30 -o -name 'making-*' -mtime +1 \) -exec rm -rf {} +
	mv -T "$making" "$entry" 2>/dev/null || [ -d "$entry" ] || fail 125 "cannot make $entry"
	rm -rf "$making"
	trap - EXIT HUP INT TERM
}

