/* How a machine is reached: the field table and its checks. */
#include "common/guest_network.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>

int hostname_check(const char *name, struct error *err)
{
	for (const char *c = name; *c; c++)
		if (!isalnum((unsigned char)*c) && *c != '-' && *c != '.' && *c != '_')
			return error_set(err, EINVAL, "may hold letters, digits, '-', '.' and '_' only");
	return 0;
}

static int hex_value(char c)
{
	return isdigit((unsigned char)c) ? c - '0' : isxdigit((unsigned char)c) ? (c | 0x20) - 'a' + 10 : -1;
}

int mac_parse(const char *text, uint8_t ret[MAC_BYTES], struct error *err)
{
	static const uint8_t zeros[MAC_BYTES];
	uint8_t bytes[MAC_BYTES];
	bool ok = strlen(text) == 3 * MAC_BYTES - 1;

	for (size_t i = 0; i < MAC_BYTES && ok; i++) {
		int high = hex_value(text[3 * i]), low = hex_value(text[3 * i + 1]);

		ok = high >= 0 && low >= 0 && text[3 * i + 2] == (i < MAC_BYTES - 1 ? ':' : '\0');
		bytes[i] = ok ? (uint8_t)(high << 4 | low) : 0;
	}
	if (!ok || (bytes[0] & 1) || memcmp(bytes, zeros, sizeof(zeros)) == 0)
		return error_set(err, EINVAL, "must be the address of one interface, as 02:00:00:00:00:01");
	memcpy(ret, bytes, sizeof(bytes));
	return 0;
}

static int check_mac(const char *value, struct error *err)
{
	uint8_t ignored[MAC_BYTES];

	return mac_parse(value, ignored, err);
}

static int check_ipv4(const char *value, struct error *err)
{
	struct in_addr ignored;

	return inet_pton(AF_INET, value, &ignored) == 1 ? 0 : error_set(err, EINVAL, "must be an IPv4 address");
}

static int check_ip(const char *value, struct error *err)
{
	struct in6_addr ignored;

	if (inet_pton(AF_INET, value, &ignored) == 1 || inet_pton(AF_INET6, value, &ignored) == 1)
		return 0;
	return error_set(err, EINVAL, "must be an IP address");
}

static const struct json_field network_fields[] = {
	{"interface", JSON_FIELD_STRING, offsetof(struct guest_network, interface), .min = 1, .max = IFNAMSIZ - 1,
		.def_string = "eth0", .help = "the interface's name"},
	{"mac", JSON_FIELD_STRING, offsetof(struct guest_network, mac), .nullable = true, .check = check_mac,
		.help = "what its address on the link becomes"},
	{"address", JSON_FIELD_STRING, offsetof(struct guest_network, address), .required = true,
		.check = check_ipv4, .help = "IPv4 address"},
	{"prefix", JSON_FIELD_INT, offsetof(struct guest_network, prefix), .required = true, .min = 0, .max = 32,
		.help = "length of the network's prefix, bits"},
	{"gateway", JSON_FIELD_STRING, offsetof(struct guest_network, gateway), .nullable = true,
		.check = check_ipv4, .help = "where the default route leads"},
	{"dns", JSON_FIELD_STRINGS, offsetof(struct guest_network, dns), .max = 8, .check = check_ip,
		.help = "name servers"},
};
const struct json_table guest_network_table = JSON_TABLE("GuestNetwork", struct guest_network, network_fields);
