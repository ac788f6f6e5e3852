/* The rules of a network, for nft(8). What is not said is dropped.
 *
 * A port's name, its machine's address on the link and its IP address all follow from the last (links.c, subnet.h): those of all
 * machines that the subnet has room for are known before there is any, and no machine's coming or going changes a rule. */
#include "api/network/network.h"

#include "common/buf.h"
#include "common/cleanup.h"

#include <stdlib.h>

#define RULES_MAX (1u << 20) /* bytes; 1021 machines take a tenth */

/* The bridge takes IPv4 and its ARP, of the port's machine. */
static void add_ports(struct buf *text, const struct subnet *subnet)
{
	char address[ADDRESS_TEXT_BYTES], mac[MAC_TEXT_BYTES];

	buf_printf(text, "table bridge hull {\n set machines { type ifname . ether_addr . ipv4_addr; elements = {\n");
	for (uint32_t a = subnet_gateway(subnet) + 1; a <= subnet_last(subnet); a++)
		buf_printf(text, "  \"t%08x\" . %s . %s,\n", a, address_mac(a, mac), address_format(a, address));
	buf_printf(text, " } }\n"
			 " chain from_ports { type filter hook prerouting priority -300; policy drop;\n"
			 "  ether type ip iifname . ether saddr . ip saddr @machines accept\n"
			 "  ether type arp arp htype 1 arp ptype ip iifname . ether saddr . arp saddr ip @machines"
			 " iifname . arp saddr ether . arp saddr ip @machines accept\n"
			 " }\n}\n");
}

/* The gateway is a name server, and answers an echo. */
static void add_gateway(struct buf *text, const struct network *net)
{
	char gateway[ADDRESS_TEXT_BYTES];

	address_format(subnet_gateway(&net->subnet), gateway);
	buf_printf(text, "table ip hull {\n chain to_gateway { type filter hook input priority 0; policy drop;\n"
			 "  iifname lo accept\n"
			 "  iifname " NETWORK_BRIDGE " ip daddr %s udp dport 53 accept\n"
			 "  iifname " NETWORK_BRIDGE " ip daddr %s tcp dport 53 accept\n"
			 "  iifname " NETWORK_BRIDGE " ip daddr %s icmp type echo-request accept\n"
			 "  iifname " NETWORK_BRIDGE " reject\n",
		gateway, gateway, gateway);
	if (net->passt)
		buf_printf(text, "  iifname " NETWORK_UPLINK " ct state established,related accept\n");
	buf_printf(text, " }\n");
}

/* Not to link-local addresses: a cloud's metadata service would take the machine for the host. */
static void add_egress(struct buf *text, const struct network *net)
{
	buf_printf(text, " chain through { type filter hook forward priority 0; policy drop;\n");
	/* What is bridged comes here only on a host with br_netfilter, whenever that was loaded. */
	buf_printf(text, "  iifname " NETWORK_BRIDGE " oifname " NETWORK_BRIDGE " accept\n");
	if (net->passt)
		buf_printf(text, "  iifname " NETWORK_BRIDGE " oifname " NETWORK_UPLINK
				 " ip daddr != { 169.254.0.0/16, 127.0.0.0/8, 224.0.0.0/3, " UPLINK_NET " } accept\n"
				 "  iifname " NETWORK_UPLINK " oifname " NETWORK_BRIDGE " ct state established,related accept\n");
	buf_printf(text, "  iifname " NETWORK_BRIDGE " reject with icmp type admin-prohibited\n }\n");
	if (net->passt)
		buf_printf(text, " chain source { type nat hook postrouting priority srcnat;\n  oifname " NETWORK_UPLINK " masquerade\n }\n");
	buf_printf(text, "}\n");
}

char *rules_text(const struct network *net)
{
	struct buf text;

	buf_init(&text, RULES_MAX);
	add_ports(&text, &net->subnet);
	add_gateway(&text, net);
	add_egress(&text, net);
	if (!text.data)
		abort();
	return text.data;
}
