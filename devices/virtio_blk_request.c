/* virtio-blk: what one request asks for, checked against the disk and against what was negotiated. */
#include "devices/virtio_blk_device.h"

#include "common/checked.h"

#include <errno.h>
#include <string.h>

/* What a driver that keeps to both can ask for at most, 8 MiB: a reset, a save and a shutdown wait for what the kernel
 * has begun, and indirect descriptors would otherwise allow gigabytes a request. A larger one fails as a whole, however
 * it is cut; Linux sends 1.25 MiB unless told otherwise. */
#define TRANSFER_BYTES_MAX ((uint64_t)BLK_SEGMENTS_MAX * BLK_SEGMENT_BYTES_MAX)

enum { F_FLUSH = 9 }; /* section 5.2.3 */

/* Section 5.2.6. */
enum { T_IN = 0, T_OUT = 1, T_FLUSH = 4, T_GET_ID = 8, T_DISCARD = 11, T_WRITE_ZEROES = 13 };

struct request_header {
	uint32_t type;
	uint32_t reserved;
	uint64_t sector;
};

struct range {
	uint64_t sector;
	uint32_t num_sectors;
	uint32_t flags;
};
#define RANGE_UNMAP 1u

/* Drops the first `bytes` of the readable buffers: the header. They hold that many. */
static void skip_header(struct virtq_chain *chain, size_t bytes, struct iovec **ret_iov, unsigned *ret_n)
{
	struct iovec *iov = chain->iov;
	unsigned n = chain->n_out;

	while (n > 0 && bytes >= iov->iov_len) {
		bytes -= iov->iov_len;
		iov++;
		n--;
	}
	if (n > 0) {
		iov->iov_base = (char *)iov->iov_base + bytes;
		iov->iov_len -= bytes;
	}
	*ret_iov = iov;
	*ret_n = n;
}

/* Takes the last byte off the writable buffers and returns it: the status. There is at least one. */
static uint8_t *take_status_byte(struct virtq_chain *chain)
{
	struct iovec *last = &chain->iov[chain->n_out + chain->n_in - 1];

	last->iov_len--;
	chain->in_bytes--;
	if (last->iov_len == 0)
		chain->n_in--;
	return (uint8_t *)last->iov_base + last->iov_len;
}

/* Whether [sector, sector + bytes) is on the disk, in whole sectors (5.2.6.1). */
static bool on_disk(const struct virtio_blk *blk, uint64_t sector, uint64_t bytes)
{
	return bytes % BLK_SECTOR_BYTES == 0 && range_fits(sector, bytes >> BLK_SECTOR_SHIFT, blk->config.capacity);
}

/* Each parse function returns BLK_S_OK with req->io set, or the status to answer with. */
static uint8_t parse_transfer(struct virtio_blk *blk, struct blk_request *req, bool write)
{
	struct virtq_chain *chain = &req->chain;
	struct blk_io *io = &req->io;

	io->op = write ? BLK_OP_WRITE : BLK_OP_READ;
	if (write) {
		io->len = chain->out_bytes - sizeof(struct request_header);
		skip_header(chain, sizeof(struct request_header), &io->iov, &io->n_iov);
	} else {
		io->len = chain->in_bytes;
		io->iov = chain->iov + chain->n_out;
		io->n_iov = chain->n_in;
		req->in_bytes += (uint32_t)io->len;
	}
	if (write && blk->read_only)
		return BLK_S_IOERR;
	if (io->len == 0 || io->len > TRANSFER_BYTES_MAX || !on_disk(blk, req->sector, io->len))
		return BLK_S_IOERR;
	io->offset = req->sector << BLK_SECTOR_SHIFT;
	return BLK_S_OK;
}

/* DISCARD and WRITE_ZEROES: one range, as the configuration space allows (max_*_seg is 1). */
static uint8_t parse_range(struct virtio_blk *blk, struct blk_request *req, bool discard)
{
	uint64_t data_bytes = req->chain.out_bytes - sizeof(struct request_header);
	struct range range;

	if (blk->read_only)
		return BLK_S_IOERR; /* 5.2.6.2 */
	if (!blk->discard_offered)
		return BLK_S_UNSUPP;
	if (data_bytes != sizeof(range))
		return BLK_S_IOERR;
	virtq_chain_read(&req->chain, sizeof(struct request_header), &range, sizeof(range));
	/* 5.2.6.2: unknown flags, and unmap with DISCARD, are unsupported. */
	if ((range.flags & ~RANGE_UNMAP) || (discard && range.flags))
		return BLK_S_UNSUPP;
	req->sector = range.sector;
	if (range.num_sectors == 0 || range.num_sectors > BLK_RANGE_SECTORS_MAX ||
		!range_fits(range.sector, range.num_sectors, blk->config.capacity))
		return BLK_S_IOERR;
	if (discard)
		req->io.op = BLK_OP_DISCARD;
	else
		req->io.op = range.flags & RANGE_UNMAP ? BLK_OP_UNMAP_ZEROES : BLK_OP_WRITE_ZEROES;
	req->io.offset = range.sector << BLK_SECTOR_SHIFT;
	req->io.len = (uint64_t)range.num_sectors << BLK_SECTOR_SHIFT;
	return BLK_S_OK;
}

static uint8_t parse(struct virtio_blk *blk, struct blk_request *req, const struct request_header *header)
{
	/* 5.2.6.2: a driver that does not know FLUSH expects what was answered to be on stable storage. */
	req->io = (struct blk_io){
		.durable = blk->flush_offered && !virtio_dev_negotiated(&blk->dev, F_FLUSH),
	};
	req->sector = header->sector;
	req->in_bytes = 1;
	switch (header->type) {
	case T_IN:
		req->io.durable = false;
		return parse_transfer(blk, req, false);
	case T_OUT:
		return parse_transfer(blk, req, true);
	case T_FLUSH:
		req->io.op = BLK_OP_FLUSH;
		req->io.durable = false;
		return blk->flush_offered ? BLK_S_OK : BLK_S_UNSUPP;
	case T_DISCARD:
		req->io.durable = false;
		return parse_range(blk, req, true);
	case T_WRITE_ZEROES:
		return parse_range(blk, req, false);
	default:
		return BLK_S_UNSUPP;
	}
}

/* 5.2.6: the driver has 20 bytes for it. */
static void write_serial(struct virtio_blk *blk, struct blk_request *req)
{
	req->in_bytes = 1 + (uint32_t)virtq_chain_write(&req->chain, 0, blk->serial, BLK_SERIAL_BYTES);
}

int blk_request_parse(struct virtio_blk *blk, struct blk_request *req, uint8_t *ret_status)
{
	struct request_header header;

	if (virtq_chain_read(&req->chain, 0, &header, sizeof(header)) < sizeof(header) || req->chain.in_bytes == 0)
		return -EINVAL;
	req->status = take_status_byte(&req->chain);
	if (header.type == T_GET_ID) {
		write_serial(blk, req);
		*ret_status = BLK_S_OK;
		return 0;
	}
	*ret_status = parse(blk, req, &header);
	return *ret_status == BLK_S_OK;
}
