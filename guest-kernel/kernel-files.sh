# shellcheck shell=sh
# Taking a distribution's kernel and modules apart, so that nobody decompresses or verifies them at boot. Read by
# fetch-kernel, build-kernel, make-initramfs and kvmhost. Each function says what is wrong on standard error and returns 1.

complain() {
	echo "$*" >&2
	return 1
}

# 32 bits, little-endian, at an offset of a file.
number_at() { # FILE OFFSET
	od -An -tu4 --endian=little -j "$2" -N 4 "$1" | tr -d ' '
}

# The program that unpacks, with its arguments, for what starts with these bytes.
unpacker_of() { # FILE OFFSET
	case $(od -An -tx1 -j "$2" -N 4 "$1" | tr -d ' ') in
	28b52ffd) unpacker='zstd -qdc' package=zstd ;;
	1f8b*) unpacker='gzip -dc' package=gzip ;;
	fd377a58) unpacker='xz -dc' package=xz-utils ;;
	02214c18) unpacker='lz4 -qdc' package=lz4 ;;
	7f454c46) unpacker=cat package=coreutils ;; # an ELF file
	*) complain "$1: packed in a way that is not known" || return 1 ;;
	esac
	command -v "${unpacker%% *}" >/dev/null ||
		complain "${unpacker%% *} is missing: apt-get install $package" || return 1
	echo "$unpacker"
}

# Cuts the ELF kernel out of a bzImage. Its setup header says where the payload lies and how long it is
# (Documentation/arch/x86/boot.rst: setup_sects, payload_offset, payload_length); four bytes of that are the size
# unpacked, which the build appends.
extract_vmlinux() { # BZIMAGE TARGET
	[ "$(dd if="$1" bs=1 skip=514 count=4 2>/dev/null)" = HdrS ] || complain "$1: not a bzImage" || return 1
	sectors=$(od -An -tu1 -j 497 -N 1 "$1" | tr -d ' ')
	[ "$sectors" -ne 0 ] || sectors=4
	start=$(((sectors + 1) * 512 + $(number_at "$1" 584)))
	length=$(($(number_at "$1" 588) - 4))
	unpacker=$(unpacker_of "$1" "$start") || return 1
	tail -c +$((start + 1)) "$1" | head -c "$length" | $unpacker >"$2" ||
		complain "$1: cannot unpack its payload" || return 1
	[ "$(dd if="$2" bs=1 skip=1 count=3 2>/dev/null)" = ELF ] ||
		complain "$1: what was packed is no ELF file" || return 1
}

# An uncompressed copy of a module without its signature. Nobody enforces that where these modules go, and checking it
# took a stock kernel 1.2 of the 1.4 s (virtual) from /init to the workload, and costs an emulated processor far more.
# The kernel is tainted "E" for it. At the file's end: struct module_signature, whose last field, big-endian, is the
# signature's length; then 28 bytes of magic.
copy_module() { # FILE TARGET
	unpacker=$(unpacker_of "$1" 0) || return 1
	$unpacker "$1" >"$2" || return 1
	case $(tail -c 28 "$2") in
	'~Module signature appended~'*)
		# shellcheck disable=SC2046 # four numbers
		set -- "$2" $(tail -c 32 "$2" | od -An -tu1 -N4)
		truncate -s "-$((40 + ($2 << 24) + ($3 << 16) + ($4 << 8) + $5))" "$1"
		;;
	esac
}

# Debian's kernel NAME, or the one that NAME, a meta-package that follows its updates, stands for: sets `package` and `version`.
# Asking apt takes a second; while its lists are the same so is the answer, which is kept in the folder CACHE. False: apt
# knows none. Needs: apt.
find_kernel_package() { # NAME CACHE
	package='' version='' asked=''
	lists=$(stat -c %Y /var/lib/apt/lists 2>/dev/null || echo none)
	[ ! -s "$2/package-$1" ] || read -r package version asked <"$2/package-$1"
	[ "$asked" != "$lists" ] || return 0
	asked=$(apt-cache show --no-all-versions "$1" 2>/dev/null |
		awk -v name="$1" '
			$1 == "Version:" { version = $2 }
			$1 == "Depends:" && match($0, /linux-image-[0-9][^ ,]*/) { name = substr($0, RSTART, RLENGTH) }
			END { if (version != "") print name, version }')
	if [ -n "$asked" ]; then
		mkdir -p "$2"
		echo "$asked $lists" >"$2/package-$1.$$"
		mv "$2/package-$1.$$" "$2/package-$1"
		package=${asked% *} version=${asked#* }
	fi
	[ -n "$package" ]
}

# What the cache has of a kernel, into a folder: what differs is replaced at once.
copy_kernel() { # CACHED OUTPUT
	mkdir -p "$2/lib"
	for file in vmlinuz vmlinux release config; do
		[ -e "$1/$file" ] || continue # a stock kernel's configuration is not kept
		cmp -s "$1/$file" "$2/$file" && continue
		cp "$1/$file" "$2/$file.new"
		mv "$2/$file.new" "$2/$file"
	done
	ln -sfnT "$(cd "$1" && pwd)/lib/modules" "$2/lib/modules"
}
