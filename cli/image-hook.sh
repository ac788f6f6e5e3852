# Runs in mmdebstrap's customize phase (POSIX sh, root of the user namespace or of the host); $1 is the new root.
# HULL_STAGE is "packages" or "image"; HULL_BUILD_START is when this stage began, in seconds since 1970;
# .hull.start has the time of the second before the first one did.
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

# The file system's place, so that making it changes no folder any more.
[ "$HULL_STAGE" != image ] || : > "$root/.hull.erofs"

# Packages' files keep their own times, which compiled Python files refer to; what has been made since the packages' build began
# gets one that is fixed. (mmdebstrap's tar dates nothing later than its own start: hence the second before.)
[ "$HULL_STAGE" = image ] || touch -d "@$((HULL_BUILD_START - 1))" "$root/.hull.start"
find "$root" \( -path "$root/proc" -o -path "$root/sys" -o -path "$root/dev" \) -prune -o \
	-newer "$root/.hull.start" -print0 | xargs -0r touch -hcd @1577836800

[ "$HULL_STAGE" = image ] || exit 0

# Seen through a bind mount, so that /proc, /sys and /dev are the folders of the image, not what is mounted for the build.
# Nothing is dated by the build itself: SOURCE_DATE_EPOCH is the image's own date and the latest that a file can have, so late that
# each keeps its own. (mkfs.erofs -T would give them all one, and every compiled Python file would count as stale.)
exec unshare --mount sh -euc '
	mount --bind "$1" "$1/mnt"
	touch -cd @1577836800 "$1/mnt/proc" "$1/mnt/sys" "$1/mnt/dev"
	SOURCE_DATE_EPOCH=4102444800 exec mkfs.erofs -d0 --quiet -U 68756c6c-0000-4000-8000-000000000001 \
		--exclude-path=.hull.erofs --exclude-path=.hull.start --exclude-regex="^(dev|proc|sys|run|tmp)/.+" "$1/.hull.erofs" "$1/mnt"' sh "$root"
