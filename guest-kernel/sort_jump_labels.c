/* sort_jump_labels VMLINUX: puts a kernel's jump labels, once it is linked, into the order in which that wants them. Each boot does it
 * otherwise, with two million instructions. Run by the kernel's own link (build-kernel), on the machine that builds.
 *
 * An entry has three numbers, each relative to where it itself is:
 *
 *	0   code     the instruction that is patched
 *	4   target   where it then jumps to
 *	8   key      what it depends on; two flags in the lowest bits, as what it is relative to is aligned
 *
 * By key, and within a key by code (jump_label_cmp() in the kernel's kernel/jump_label.c). */
#include <elf.h>
#include <err.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#define FIRST "__start___jump_table"
#define END   "__stop___jump_table"

#define KEY_FLAGS 3

struct entry {
	int32_t code, target;
	int64_t key;
};

/* The same with addresses. */
struct label {
	uint64_t code, target, key;
	int64_t flags;
};

struct image {
	uint8_t *data;
	uint64_t size;
	const Elf64_Shdr *sections;
	uint16_t n_sections;
};

static const void *within(const struct image *image, uint64_t offset, uint64_t size)
{
	if (offset > image->size || size > image->size - offset)
		errx(1, "what the file says of itself reaches beyond its end");
	return image->data + offset;
}

static struct image open_image(const char *path)
{
	struct image image = {0};
	struct stat st;
	const Elf64_Ehdr *header;
	int fd = open(path, O_RDWR | O_CLOEXEC);

	if (fd < 0 || fstat(fd, &st) < 0)
		err(1, "%s", path);
	image.size = (uint64_t)st.st_size;
	image.data = mmap(NULL, image.size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (image.data == MAP_FAILED)
		err(1, "%s", path);
	header = within(&image, 0, sizeof(*header));
	if (memcmp(header->e_ident, ELFMAG, SELFMAG) || header->e_ident[EI_CLASS] != ELFCLASS64 || header->e_shentsize != sizeof(Elf64_Shdr))
		errx(1, "%s is no ELF file of 64 bits with sections", path);
	image.n_sections = header->e_shnum;
	image.sections = within(&image, header->e_shoff, image.n_sections * sizeof(Elf64_Shdr));
	return image;
}

static uint64_t find_symbol(const struct image *image, const char *name)
{
	for (uint16_t i = 0; i < image->n_sections; i++) {
		const Elf64_Shdr *section = &image->sections[i], *names;
		const Elf64_Sym *symbols;

		if (section->sh_type != SHT_SYMTAB || section->sh_link >= image->n_sections)
			continue;
		names = &image->sections[section->sh_link];
		symbols = within(image, section->sh_offset, section->sh_size);
		for (uint64_t j = 0; j < section->sh_size / sizeof(*symbols); j++) {
			if (symbols[j].st_name > names->sh_size || strlen(name) + 1 > names->sh_size - symbols[j].st_name)
				continue;
			if (!memcmp(within(image, names->sh_offset + symbols[j].st_name, strlen(name) + 1), name, strlen(name) + 1))
				return symbols[j].st_value;
		}
	}
	errx(1, "it has no symbol %s", name);
}

static struct entry *find_entries(const struct image *image, uint64_t first, uint64_t end)
{
	for (uint16_t i = 0; i < image->n_sections; i++) {
		const Elf64_Shdr *section = &image->sections[i];

		if (section->sh_type == SHT_PROGBITS && section->sh_flags & SHF_ALLOC && first >= section->sh_addr && first <= end &&
			end - section->sh_addr <= section->sh_size) {
			within(image, section->sh_offset, section->sh_size);
			return (struct entry *)(void *)(image->data + section->sh_offset + (first - section->sh_addr));
		}
	}
	errx(1, "no section of it has its jump labels");
}

static int compare(const void *a, const void *b)
{
	const struct label *one = a, *other = b;

	if (one->key != other->key)
		return one->key < other->key ? -1 : 1;
	return (one->code > other->code) - (one->code < other->code);
}

int main(int argc, char **argv)
{
	struct image image;
	struct entry *entries;
	struct label *labels;
	uint64_t first, n;

	if (argc != 2)
		errx(2, "usage: sort_jump_labels VMLINUX");
	image = open_image(argv[1]);
	first = find_symbol(&image, FIRST);
	n = (find_symbol(&image, END) - first) / sizeof(struct entry);
	entries = find_entries(&image, first, first + n * sizeof(struct entry));
	labels = calloc(n + 1, sizeof(*labels));
	if (!labels)
		err(1, "%s", argv[1]);

	for (uint64_t i = 0; i < n; i++) {
		uint64_t at = first + i * sizeof(struct entry);

		labels[i] = (struct label){.code = at + (uint64_t)(int64_t)entries[i].code,
			.target = at + offsetof(struct entry, target) + (uint64_t)(int64_t)entries[i].target,
			.key = at + offsetof(struct entry, key) + (uint64_t)(entries[i].key & ~KEY_FLAGS),
			.flags = entries[i].key & KEY_FLAGS};
	}
	qsort(labels, n, sizeof(*labels), compare);
	/* All lie within the 2 GiB of the kernel: the differences fit again. */
	for (uint64_t i = 0; i < n; i++) {
		uint64_t at = first + i * sizeof(struct entry);

		entries[i] = (struct entry){.code = (int32_t)(labels[i].code - at),
			.target = (int32_t)(labels[i].target - at - offsetof(struct entry, target)),
			.key = (int64_t)(labels[i].key - at - offsetof(struct entry, key)) | labels[i].flags};
	}
	if (msync(image.data, image.size, MS_SYNC) < 0)
		err(1, "%s", argv[1]);
	return 0;
}
