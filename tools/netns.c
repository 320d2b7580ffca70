// SPDX-License-Identifier: GPL-2.0
/*
 * A network namespace for each node of a machine on one host (root only).
 *
 *      namespace of node 0            of node 1            of node 2
 *      br0 10.80.0.1                  eth0 10.80.0.2       eth0 10.80.0.3
 *       |-- node1 ======= veth ========'                    |
 *       '-- node2 ======= veth =============================='
 *
 * The nodes then share nothing but these wires.  Nothing is made in the host's own namespace, and a
 * namespace goes when its last process and descriptor go, with all that is in it: there is nothing to clean
 * up, even after SIGKILL.
 *
 * A netlink socket belongs to the namespace it was made in; so this process visits each new namespace once
 * to make one and comes back.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "pangea.h"

/* Indices of links are chosen here, so that none must be looked up. */
#define INDEX_FIRST	2		/* br0, eth0 */
#define INDEX_PORT(k)	(100 + (k))	/* of node k on the bridge */

/* One netlink request under construction. */
struct request {
	struct nlmsghdr header;
	char body[512];
};

/* Everything is padded to four bytes, as nested attributes count the padding of the last one in them. */
static void *request_put(struct request *r, const void *data, size_t size)
{
	char *at = (char *)r + r->header.nlmsg_len;

	if (size)
		memcpy(at, data, size);
	r->header.nlmsg_len += NLMSG_ALIGN(size);
	return at;
}

static void request_begin(struct request *r, int type, int flags, const void *header, size_t size)
{
	memset(r, 0, sizeof(*r));
	r->header.nlmsg_len = NLMSG_HDRLEN;
	r->header.nlmsg_type = type;
	r->header.nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK | flags;
	request_put(r, header, size);
}

/* Returns the attribute, for request_nest_end(). */
static struct rtattr *request_attribute(struct request *r, int type, const void *data, size_t size)
{
	struct rtattr attribute = { .rta_type = type, .rta_len = RTA_LENGTH(size) };
	struct rtattr *at = request_put(r, &attribute, sizeof(attribute));

	request_put(r, data, size);
	return at;
}

static void request_nest_end(struct request *r, struct rtattr *nest)
{
	nest->rta_len = (char *)r + r->header.nlmsg_len - (char *)nest;
}

static int request_do(int netlink, struct request *r)
{
	struct {
		struct nlmsghdr header;
		struct nlmsgerr error;
		char echo[1024];
	} answer;

	if (send(netlink, r, r->header.nlmsg_len, 0) < 0)
		return -errno;
	if (recv(netlink, &answer, sizeof(answer), 0) < (ssize_t)NLMSG_LENGTH(sizeof(answer.error)))
		return -EPROTO;
	return answer.header.nlmsg_type == NLMSG_ERROR ? answer.error.error : -EPROTO;
}

static int bridge_make(int netlink)
{
	struct ifinfomsg link = { .ifi_family = AF_UNSPEC, .ifi_index = INDEX_FIRST };
	struct rtattr *info;
	struct request r;

	request_begin(&r, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &link, sizeof(link));
	request_attribute(&r, IFLA_IFNAME, "br0", sizeof("br0"));
	info = request_attribute(&r, IFLA_LINKINFO, NULL, 0);
	request_attribute(&r, IFLA_INFO_KIND, "bridge", sizeof("bridge"));
	request_nest_end(&r, info);
	return request_do(netlink, &r);
}

/* eth0 in the netlink socket's namespace; the other end, named after the node, in that of node 0. */
static int veth_make(int netlink, unsigned node, int node0_fd)
{
	struct ifinfomsg link = { .ifi_family = AF_UNSPEC, .ifi_index = INDEX_FIRST };
	struct ifinfomsg port = { .ifi_family = AF_UNSPEC, .ifi_index = INDEX_PORT(node) };
	struct rtattr *info, *data, *peer;
	char name[IFNAMSIZ];
	struct request r;

	snprintf(name, sizeof(name), "node%u", node);
	request_begin(&r, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &link, sizeof(link));
	request_attribute(&r, IFLA_IFNAME, "eth0", sizeof("eth0"));
	info = request_attribute(&r, IFLA_LINKINFO, NULL, 0);
	request_attribute(&r, IFLA_INFO_KIND, "veth", sizeof("veth"));
	data = request_attribute(&r, IFLA_INFO_DATA, NULL, 0);
	peer = request_attribute(&r, VETH_INFO_PEER, &port, sizeof(port));
	request_attribute(&r, IFLA_IFNAME, name, strlen(name) + 1);
	request_attribute(&r, IFLA_NET_NS_FD, &node0_fd, sizeof(node0_fd));
	request_nest_end(&r, peer);
	request_nest_end(&r, data);
	request_nest_end(&r, info);
	return request_do(netlink, &r);
}

static int link_up(int netlink, unsigned index, unsigned master)
{
	struct ifinfomsg link = { .ifi_family = AF_UNSPEC, .ifi_index = index,
				  .ifi_flags = IFF_UP, .ifi_change = IFF_UP };
	struct request r;

	request_begin(&r, RTM_NEWLINK, 0, &link, sizeof(link));
	if (master)
		request_attribute(&r, IFLA_MASTER, &master, sizeof(master));
	return request_do(netlink, &r);
}

static int address_add(int netlink, unsigned node)
{
	struct ifaddrmsg message = { .ifa_family = AF_INET, .ifa_prefixlen = 24, .ifa_index = INDEX_FIRST };
	struct in_addr address;
	struct request r;
	char text[32];

	networks_address(node, text, sizeof(text));
	inet_pton(AF_INET, text, &address);
	request_begin(&r, RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, &message, sizeof(message));
	request_attribute(&r, IFA_LOCAL, &address, sizeof(address));
	request_attribute(&r, IFA_ADDRESS, &address, sizeof(address));
	return request_do(netlink, &r);
}

void networks_address(unsigned node, char *text, size_t size)
{
	snprintf(text, size, "10.80.0.%u", node + 1);
}

/* A new namespace and a netlink socket in it; this process is in it afterwards. */
static int namespace_make(int *fd, int *netlink)
{
	if (unshare(CLONE_NEWNET) < 0)
		return -errno;
	*fd = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	if (*fd < 0)
		return -errno;
	*netlink = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	return *netlink < 0 ? -errno : 0;
}

static int network_wire(const struct networks *n, const int *netlink, unsigned node)
{
	int err;

	if (node)
		err = veth_make(netlink[node], node, n->fd[0]) ?:
		      link_up(netlink[0], INDEX_PORT(node), INDEX_FIRST);
	else
		err = bridge_make(netlink[0]);
	return err ?: link_up(netlink[node], 1, 0) ?: address_add(netlink[node], node) ?:
	       link_up(netlink[node], INDEX_FIRST, 0);
}

static int networks_wire(struct networks *n, int *netlink)
{
	int err = 0;

	for (unsigned i = 0; i < n->nodes && !err; i++)
		err = namespace_make(&n->fd[i], &netlink[i]);
	for (unsigned i = 0; i < n->nodes && !err; i++)
		err = network_wire(n, netlink, i);
	return err;
}

int networks_make(struct networks *n, unsigned nodes)
{
	int netlink[NODES_MAX], home, err;

	n->nodes = nodes;
	for (unsigned i = 0; i < NODES_MAX; i++)
		netlink[i] = n->fd[i] = -1;
	if (geteuid() != 0)
		return 0;
	home = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	if (home < 0)
		return 0;
	err = networks_wire(n, netlink);
	if (setns(home, CLONE_NEWNET) < 0)
		err = err ?: -errno;
	close(home);
	for (unsigned i = 0; i < nodes; i++)
		if (netlink[i] >= 0)
			close(netlink[i]);
	if (!err)
		return 0;
	networks_close(n);
	/* Root in a container may not make networks; its nodes meet on loopback, like an ordinary user's. */
	if (err == -EPERM)
		return 0;
	complain("cannot make the network of the nodes: %s%s", strerror(-err), err == -EOPNOTSUPP ?
		 "; this kernel lacks bridge or veth, run pangea as another user than root" : err == -ENOSPC ?
		 "; there are as many network namespaces as user.max_net_namespaces (sysctl) allows, raise it" : "");
	return EXIT_PANGEA;
}

void networks_close(struct networks *n)
{
	for (unsigned i = 0; i < n->nodes; i++) {
		if (n->fd[i] >= 0)
			close(n->fd[i]);
		n->fd[i] = -1;
	}
}
