# Runs in mmdebstrap's customize phase (POSIX sh, root of the user namespace or of the host); $1 is the new root.
# HULL_STAGE is "packages" or "image"; HULL_BUILD_START is when this stage began, in seconds since 1970.
set -eu
root=$1

if [ -e "$root/.hull/setup" ]; then
	chroot "$root" /bin/sh /.hull/setup
	rm -rf "$root/.hull"
fi

# What differs from build to build, or is of no use in a machine whose packages never change. Package lists and
# configuration of the build leave too; the list of installed packages stays, for scanners.
rm -rf "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/* "$root"/var/cache/ldconfig/* "$root"/var/cache/debconf/*-old \
	"$root"/var/log/* "$root"/var/lib/dpkg/*-old "$root"/etc/apt/sources.list.d/* "$root"/etc/apt/apt.conf.d/99mmdebstrap \
	"$root"/etc/dpkg/dpkg.cfg.d/99mmdebstrap "$root"/etc/passwd- "$root"/etc/group- "$root"/etc/shadow- "$root"/etc/gshadow-
for folder in doc man info locale; do
	rm -rf "$root/usr/share/$folder"
done
: > "$root/etc/machine-id"
rm -f "$root/etc/hostname" "$root/etc/resolv.conf"
[ ! -e "$root/etc/shadow" ] || sed -i 's/^\([^:]*:[^:]*\):[0-9]*:/\1:18262:/' "$root/etc/shadow"

# Packages' files keep their own times, which compiled Python files refer to; what the build made gets one that is fixed.
find "$root" \( -path "$root/proc" -o -path "$root/sys" -o -path "$root/dev" \) -prune -o -newermt "@$HULL_BUILD_START" -print0 | xargs -0r touch -hcd @1577836800

[ "$HULL_STAGE" = image ] || exit 0

# Seen through a bind mount, so that /proc, /sys and /dev are the folders of the image, not what is mounted for the build.
exec unshare --mount sh -euc '
	mount --bind "$1" "$1/mnt"
	touch -cd @1577836800 "$1/mnt/proc" "$1/mnt/sys" "$1/mnt/dev"
	exec mkfs.erofs -d0 --quiet -T 1577836800 --preserve-mtime -U 68756c6c-0000-4000-8000-000000000001 \
		--exclude-path=.hull.erofs --exclude-regex="^(dev|proc|sys|run|tmp)/.+" "$1/.hull.erofs" "$1/mnt"' sh "$root"
