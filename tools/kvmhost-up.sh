# shellcheck shell=sh
# The host that stays: kvmhost up, shell, down and status. Read by kvmhost, whose functions and options it uses.
# shellcheck disable=SC2154

# Sets `helper` to the path of one of our programs: from the build folder, beside this script, or installed.
find_helper() { # NAME
	for helper in "${hull:+$hull/$1}" "${HULL_BUILD:-$here/../build}/$1" "$libexec/$1" "$libexec/../../sbin/$1" "$here/$1"; do
		[ -x "$helper" ] && return
	done
	fail 125 "$1 is not built: run make"
}

# Copies Hull's NAME from a build folder or an installation.
copy_hull() { # NAME TARGET
	for file in "$hull/$1" "$hull/sbin/$1" "$hull/bin/$1" "$hull/libexec/hull/$1" "$hull/lib/hull/$1" \
		"$hull"/lib/*/hull/"$1"; do
		[ -f "$file" ] && cp -L "$file" "$2" && return
	done
	fail 125 "$1 is not in $hull: run make there"
}

# Sets `guest` to the folder of what machines boot: the tuned kernel's where that was built.
find_guest() {
	for guest in "$hull/guest-tuned" "$hull/guest" "$hull/lib/hull/guest" "$hull"/lib/*/hull/guest; do
		guest=${HULL_GUEST:-$guest}
		[ -f "$guest/vmlinux" ] && [ -f "$guest/initramfs.cpio" ] && return
	done
	fail 125 "no guest kernel in ${HULL_GUEST:-$hull}: run make guest there"
}

# The inside's /etc: the least that programs expect, and of this machine what belongs to its /usr.
make_etc() { # FOLDER
	mkdir -p "$1/ssl/certs"
	cat >"$1/passwd" <<'PASSWD'
root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin
haproxy:x:106:106:haproxy:/nonexistent:/usr/sbin/nologin
nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
PASSWD
	cat >"$1/group" <<'GROUP'
root:x:0:
daemon:x:1:
tty:x:5:
disk:x:6:
kvm:x:104:
haproxy:x:106:
nogroup:x:65534:
GROUP
	echo hull-host >"$1/hostname"
	printf '127.0.0.1\tlocalhost\n10.0.2.15\thull-host\n::1\tlocalhost\n' >"$1/hosts"
	echo nameserver 10.0.2.3 >"$1/resolv.conf"
	printf 'passwd: files\ngroup: files\nhosts: files dns\n' >"$1/nsswitch.conf"
	ln -s /proc/self/mounts "$1/mtab"
	for file in ld.so.conf ld.so.conf.d ld.so.cache alternatives protocols services ethertypes mke2fs.conf \
		ssl/certs/ca-certificates.crt ssl/openssl.cnf; do
		[ ! -e "/etc/$file" ] || cp -a "/etc/$file" "$1/$file"
	done
}

make_disk() {
	[ -e "$state/disk.img" ] && return
	need mkfs.ext4 e2fsprogs
	rm -f "$state/disk.img.new"
	truncate -s 32G "$state/disk.img.new"
	mkfs.ext4 -q -F -L hull-state -E root_owner=0:0,lazy_itable_init=1 "$state/disk.img.new" ||
		fail 125 "cannot make $state/disk.img"
	mv "$state/disk.img.new" "$state/disk.img"
}

json_value() { # FILE KEY: of the one-line objects we write ourselves
	sed -n "s/.*\"$2\":\"\([^\"]*\)\".*/\1/p" "$1" 2>/dev/null || : # none yet
}

# The same port and token as before where that is possible: who was told them can go on.
choose_api() {
	url=$(json_value "$state/api.json" url)
	token=$(json_value "$state/api.json" token)
	[ ${#token} -eq 64 ] || token=$(od -An -tx1 -N32 /dev/urandom | tr -d ' \n')
	port=$("$relay" free-port "${url##*:}") || fail 125 "no port of 127.0.0.1 is free"
	url=http://127.0.0.1:$port
	(umask 077 && printf '%s\n' "$token" >"$state/token" &&
		printf '{"url":"%s","token":"%s"}\n' "$url" "$token" >"$state/api.json.new")
}

# Makes api.json.new known, once the host is up; the next `up` does it where this one was ended before it came to it. hull
# finds the API by its context file; one that somebody wrote for another host is left alone.
keep_api() {
	url=$(json_value "$state/api.json.new" url)
	context=${XDG_CONFIG_HOME:-$HOME/.config}/hull/context.json
	if [ ! -e "$context" ] || cmp -s "$context" "$state/api.json"; then
		mkdir -p "${context%/*}"
		cp -p "$state/api.json.new" "$context.new" && mv "$context.new" "$context"
	else
		echo "kvmhost: $context names another host and stays as it is; 'hull --host $url' reaches this one" >&2
	fi
	mv "$state/api.json.new" "$state/api.json"
}

drop_context() {
	context=${XDG_CONFIG_HOME:-$HOME/.config}/hull/context.json
	[ ! -e "$state/api.json" ] || ! cmp -s "$context" "$state/api.json" || rm -f "$context"
}

# What hulld's machines may see of this machine's folders: hulld's options. No share has a space in its path.
allow_shares() {
	for dir in $shares; do printf -- '--mount-allow %s ' "$dir"; done
}

# The archive behind the initramfs, and what the inside is made of.
make_up_files() { # FOLDER HULLD_OPTION...
	files=$1
	mkdir -p "$1/files" "$1/root-files/opt/hull"
	make_etc "$1/root-files/etc"
	find_helper kvmhost-agent
	cp "$helper" "$1/files/kvmhost-agent"
	n=0
	for dir in $shares; do
		echo "share$n rw $dir" >>"$1/shares"
		n=$((n + 1))
	done
	[ -z "$bare" ] || return 0
	for name in hulld hull-vmm hull-virtiofs hull-ingress hull-network; do
		copy_hull "$name" "$1/root-files/opt/hull/$name"
	done
	find_guest
	cp -L "$guest/vmlinux" "$guest/initramfs.cpio" "$1/root-files/opt/hull/"
	cp "$state/token" "$1/root-files/opt/hull/token"
	chmod 600 "$1/root-files/opt/hull/token"
	shift
	printf '%s\n' /opt/hull/hulld --state /var/lib/hull --run /run/hull --listen 0.0.0.0:7070 \
		--token-file /opt/hull/token --kernel /opt/hull/vmlinux --initrd /opt/hull/initramfs.cpio \
		--vmm /opt/hull/hull-vmm --virtiofs /opt/hull/hull-virtiofs --ingress /opt/hull/hull-ingress --network /opt/hull/hull-network $(allow_shares) \
		--ingress-forwarder /dev/virtio-ports/hull.forward ${http:+--http 0.0.0.0:7080} \
		${https:+--https 0.0.0.0:7443} "$@" >"$files/files/hulld"
}

# Of the network: where hulld is reached from here.
forwards() {
	set -- "$port" 7070 "$http" 7080 "$https" 7443
	while [ $# -gt 0 ]; do
		[ -z "$1" ] || printf ',hostfwd=tcp:127.0.0.1:%s-:%s' "$1" "$2"
		shift 2
	done
}

up_emulated() { # HULLD_OPTION...
	need qemu-system-x86_64 qemu-system-x86
	need cpio cpio
	for dir in bin lib; do
		[ -L /$dir ] || fail 125 "/$dir is no link into /usr: the usrmerge package makes it one"
	done
	find_entry
	make_disk
	work=$(mktemp -d "$run/starting-XXXXXX")
	trap 'rm -rf "$work"' EXIT
	trap 'exit 130' HUP INT TERM
	make_up_files "$work/files" "$@"
	append_files "$work/files" "$work/initramfs.cpio"
	set -- -virtfs "local,path=$entry/lib/modules/$(cat "$entry/release"),mount_tag=modules,security_model=none,readonly=on"
	n=0
	for dir in $shares; do
		set -- "$@" -virtfs "local,path=$dir,mount_tag=share$n,security_model=none,multidevs=remap"
		n=$((n + 1))
	done
	# cache=writeback: what the inside flushes is flushed; what it does not may sit in this machine's page cache.
	"$relay" start --run "$run" --log "$state/relay.log" -- \
		qemu-system-x86_64 -M q35 -cpu $emulated_cpu -accel tcg,thread=multi "$@" \
		-smp "$cpus" -m "$memory" -display none -nodefaults -no-user-config -no-reboot \
		-kernel "$entry/vmlinux" -initrd "$work/initramfs.cpio" \
		-append "console=ttyS0 quiet panic=-1 mitigations=off nokaslr tsc=reliable kvmhost.mode=up $unless_counted $(tsc_known)" \
		-chardev "file,id=console,path=$state/console.log" -serial chardev:console \
		-drive "if=none,id=state,file=$state/disk.img,format=raw,cache=writeback,discard=unmap" \
		-device virtio-blk-pci,drive=state,serial=hull-state \
		-netdev "user,id=n0$(forwards)" -device virtio-net-pci,netdev=n0,romfile= \
		-virtfs local,path=/usr,mount_tag=usr,security_model=none,readonly=on,multidevs=remap \
		-device virtio-serial-pci,max_ports=16 || {
		tail -n 20 "$state/console.log" >&2 || :
		fail 125 "the emulated host did not come up; above is what its console said last ($state/console.log)"
	}
}

# Where /dev/kvm is usable, hulld itself is what stays.
up_here() { # HULLD_OPTION...
	mkdir -p "$state/hulld"
	find_helper hull-vmm
	vmm=$helper
	find_helper hull-virtiofs
	virtiofs=$helper
	find_helper hull-ingress
	ingress=$helper
	find_helper hull-network
	network=$helper
	find_helper hulld
	find_guest
	mkdir -p "$run/hulld"
	"$relay" start --run "$run" --log "$state/relay.log" --probe "$port" -- \
		"$helper" --state "$state/hulld" --run "$run/hulld" --listen "127.0.0.1:$port" --token-file "$state/token" \
		--kernel "$guest/vmlinux" --initrd "$guest/initramfs.cpio" --vmm "$vmm" --virtiofs "$virtiofs" --ingress "$ingress" --network "$network" $(allow_shares) \
		${http:+--http "127.0.0.1:$http"} ${https:+--https "127.0.0.1:$https"} "$@" ||
		fail 125 "hulld did not come up: see $state/relay.log"
}

# Host names are HAProxy's, which says only in hulld's log why it does not come up.
check_http() {
	[ -n "$http$https" ] || return 0
	PATH=$PATH:/usr/sbin need haproxy haproxy
	for wanted in $http $https; do
		[ "$("$relay" free-port "$wanted")" = "$wanted" ] || fail 125 "port $wanted of 127.0.0.1 is taken by another program"
	done
}

# Of hulld's own options, before a host is started that hulld would not come up on.
check_hulld_options() { # HULLD_OPTION...
	[ $# -gt 0 ] || return 0
	[ -z "$bare" ] || refuse "--bare: without hulld there is nothing to take '$1'"
	case $* in *"
"*) refuse "'$*': a newline is not supported" ;; esac
	find_helper hulld
	why=$("$helper" "$@" --version 2>&1 >/dev/null) || refuse "hulld takes no such options: $(echo "${why#*: }" | head -n 1)"
}

# What the host is to be, a word to each line. Of a host that is up already, only what is named has to be the same.
wanted() { # HULLD_OPTION...
	printf '%s\n' ${cpus:+"-c $cpus"} ${memory:+"-m $memory"} ${http:+"--http $http"} ${https:+"--https $https"}
	for word in $shares; do echo "--share $word"; done
	[ $# -eq 0 ] || printf -- '-- %s\n' "$*"
}

already_up() { # HULLD_OPTION...
	wanted "$@" | while read -r line; do
		[ -z "$line" ] || grep -qxFe "$line" "$run/wanted" 2>/dev/null ||
			fail 1 "already up, without $line: 'kvmhost down' first"
	done || exit
	echo "kvmhost: already up" >&2
	[ ! -e "$state/api.json.new" ] || keep_api
	print_api
}

print_api() {
	if [ -e "$state/api.json" ]; then cat "$state/api.json"; else echo "kvmhost: up, without hulld"; fi
}

up() {
	options "-c -m --state --hull --bare --http --https --share" "$@"
	shift "$used"
	case ${1:---} in --*) ;; *) refuse "up takes no command" ;; esac
	[ -z "$bare" ] || [ -z "$http$https" ] || refuse "--bare: without hulld nothing is served by --http or --https"
	port='' run=$state/run
	if [ -z "$hull" ]; then
		if [ -d "${HULL_BUILD:-$here/../build}" ]; then
			hull=$(realpath "${HULL_BUILD:-$here/../build}")
		else
			hull=${here%/*}
		fi
	fi
	find_helper kvmhost-relay
	relay=$helper
	mkdir -p "$run"
	chmod 700 "$state" "$run"
	case $("$relay" ask "$run" status || :) in
	up)
		already_up "$@"
		return
		;;
	?*) fail 1 "the host is starting or stopping: try again when it has" ;;
	esac
	check_http
	check_hulld_options "$@"
	# One processor: several have been seen to trip over code that the kernel patches while they run it (QEMU 7.2).
	cpus=${cpus:-1} memory=${memory:-3072}
	wanted "$@" >"$run/wanted"
	rm -rf "$run"/starting-* "$run/here"
	: >"$state/console.log"
	if [ -n "$bare" ]; then rm -f "$state/api.json" "$state/api.json.new"; else choose_api; fi
	if kvm_usable && [ -z "$bare" ]; then
		: >"$run/here"
		up_here "$@"
	else
		up_emulated "$@"
	fi
	[ -n "$bare" ] || keep_api
	print_api
}

# Sets `run` and `relay` and what the relay says.
find_host() { # COMMAND ARGUMENT...
	options "--state" "$@"
	run=$state/run
	find_helper kvmhost-relay
	relay=$helper
	answer=$("$relay" ask "$run" status) || answer=down
}

shell() {
	find_host "$@"
	shift "$used"
	[ "$answer" = up ] || fail 3 "the host is $answer: kvmhost up"
	if [ -e "$run/here" ]; then
		[ $# -gt 0 ] || set -- "${SHELL:-/bin/sh}"
		exec "$@"
	fi
	find_helper kvmhost-attach
	exec "$helper" "$run" "$@"
}

down() {
	find_host "$@"
	shift "$used"
	[ $# -eq 0 ] || refuse "down takes no command"
	if [ "$answer" = down ]; then
		drop_context
		rm -f "$run/outcome"
		echo "kvmhost: not up" >&2
		return
	fi
	drop_context
	case $("$relay" ask "$run" down || :) in
	forced) fail 1 "the host did not end in time and was ended; what it had flushed is there" ;;
	*) echo "kvmhost: down" >&2 ;;
	esac
}

status() {
	find_host "$@"
	shift "$used"
	[ $# -eq 0 ] || refuse "status takes no command"
	if [ "$answer" = up ]; then
		print_api
	elif [ -s "$run/outcome" ]; then
		fail 3 "down: $(cat "$run/outcome")"
	else
		fail 3 "$answer"
	fi
}
