// SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause
/*
 * PCI host bridges whose configuration space lives in memory.
 *
 * Linux enumerates them like real ones: a host bridge for each socket, a root port for each
 * card, and behind it one function (a card of one chip), or a switch with a function behind
 * each of its downstream ports. Everything in sysfs is then the kernel's own: attributes,
 * links, remove, rescan, bind, unbind, uevents.
 *
 * /proc/spu_host takes one command a write, "BUS-ID VERB [NUMBER [NUMBER]]":
 *
 *   gone               the function does not answer (no device)
 *   ones               every read gives all ones, as behind a dead link
 *   back               it answers again
 *   link WIDTH SPEED   how its link runs; SPEED is 1 for 2.5 GT/s, 2 for 5, 3 for 8
 *   most WIDTH SPEED   how its link could run
 *   hold               its configuration space is locked, as during a reset: whoever reads
 *                      it in sysfs sleeps
 *   release            and no more
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/irq.h>
#include <linux/module.h>
#include <linux/proc_fs.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "spu_host.h"
#include <asm/pci.h> /* needs linux/pci.h before it */

#define SOCKETS 2
#define CARDS 16
#define VFS 7 /* functions 1 to 7 of the chip's own bus */

static int cards[CARDS] = { 3, 3, 3, 3, 3, 3, 3, 3 };
static int card_count = 8;
module_param_array(cards, int, &card_count, 0444);
MODULE_PARM_DESC(cards, "chips on each card: 3 is an S30, 1 an S4");
static int sockets = 2;
module_param(sockets, int, 0444);
static bool numa = true;
module_param(numa, bool, 0444);
MODULE_PARM_DESC(numa, "whether each socket is a NUMA node");
static int domain;
module_param(domain, int, 0444);
static int vfs;
module_param(vfs, int, 0444);
MODULE_PARM_DESC(vfs, "virtual functions that each chip can have");

/* Only the S30's id is published; the other two are of this module's own making. */
static const u16 device_ids[] = { 0, 0x7004, 0x7010, 0x7030 };

enum place { EXPRESS = 0x40, POWER = 0x80, AER = 0x100, SRIOV = 0x160 };

struct function {
	struct list_head list;
	int bus, devfn;
	enum { PHYSICAL, VIRTUAL, PORT } kind;
	struct function *physical; /* of a virtual one */
	int card, chip;
	bool gone, ones;
	u8 space[PCI_CFG_SPACE_EXP_SIZE];
};

static LIST_HEAD(functions);
static struct pci_bus *roots[SOCKETS];
static struct pci_sysdata sysdata[SOCKETS];
static struct resource bus_numbers[SOCKETS];
static int port_irq;

static void put16(u8 *at, u16 value)
{
	at[0] = value;
	at[1] = value >> 8;
}

static void put32(u8 *at, u32 value)
{
	put16(at, value);
	put16(at + 2, value >> 16);
}

static u16 get16(const u8 *at)
{
	return at[0] | at[1] << 8;
}

static struct function *find(int bus, int devfn)
{
	struct function *f;

	list_for_each_entry(f, &functions, list)
		if (f->bus == bus && f->devfn == devfn)
			return f;
	return NULL;
}

/* -- configuration space ------------------------------------------------------------ */

static void set_link(struct function *f, int width, int speed)
{
	put16(f->space + EXPRESS + PCI_EXP_LNKSTA, speed | width << 4);
}

static void set_link_capability(struct function *f, int width, int speed)
{
	put32(f->space + EXPRESS + PCI_EXP_LNKCAP, speed | width << 4);
	put32(f->space + EXPRESS + PCI_EXP_LNKCAP2, GENMASK(speed, 1));
}

static struct function *add(int bus, int devfn, int kind, int type, u16 vendor, u16 device, u32 class)
{
	struct function *f = kzalloc(sizeof(*f), GFP_KERNEL);
	u8 *space;

	if (!f)
		return NULL;
	*f = (struct function){ .bus = bus, .devfn = devfn, .kind = kind };
	space = f->space;
	put16(space + PCI_VENDOR_ID, vendor);
	put16(space + PCI_DEVICE_ID, device);
	put16(space + PCI_STATUS, PCI_STATUS_CAP_LIST);
	put32(space + PCI_CLASS_REVISION, class << 8 | 1);
	space[PCI_CAPABILITY_LIST] = EXPRESS;
	space[EXPRESS] = PCI_CAP_ID_EXP;
	put16(space + EXPRESS + PCI_CAP_FLAGS, 2 | type << 4);
	put32(space + EXPRESS + PCI_EXP_DEVCAP, PCI_EXP_DEVCAP_RBER);
	set_link_capability(f, 16, 3);
	set_link(f, 16, 3);
	put16(space + EXPRESS + PCI_EXP_LNKCTL2, 3);
	put32(space + AER, PCI_EXT_CAP_ID_ERR | 1 << 16);
	put32(space + AER + PCI_ERR_UNCOR_SEVER, 0x00462030); /* what the specification begins with */
	list_add_tail(&f->list, &functions);
	return f;
}

static int add_port(int bus, int devfn, int type, int secondary, int last)
{
	bool root = type == PCI_EXP_TYPE_ROOT_PORT;
	struct function *f = add(bus, devfn, PORT, type, root ? 0x8086 : 0x11f8,
				 root ? 0x347a : 0x4068, 0x060400);
	u8 *space;

	if (!f)
		return -ENOMEM;
	space = f->space;
	space[PCI_HEADER_TYPE] = PCI_HEADER_TYPE_BRIDGE;
	space[PCI_PRIMARY_BUS] = bus;
	space[PCI_SECONDARY_BUS] = secondary;
	space[PCI_SUBORDINATE_BUS] = last;
	/* Windows whose end is before their start: closed. */
	space[PCI_IO_BASE] = 0xf0;
	put32(space + PCI_MEMORY_BASE, 0x0000fff0);
	put32(space + PCI_PREF_MEMORY_BASE, 0x0000fff0);
	return 0;
}

static int add_virtual(struct function *physical, int number)
{
	/* Their vendor and device read as all ones; the kernel takes both from the physical one. */
	struct function *f = add(physical->bus, physical->devfn + number, VIRTUAL,
				 PCI_EXP_TYPE_ENDPOINT, 0xffff, 0xffff, 0x120000);

	if (!f)
		return -ENOMEM;
	f->physical = physical;
	f->card = physical->card;
	f->chip = physical->chip;
	return 0;
}

static int add_chip(int bus, int card, int chip, int chips)
{
	struct function *f = add(bus, 0, PHYSICAL, PCI_EXP_TYPE_ENDPOINT, 0x1f36,
				 device_ids[chips], 0x120000);
	u8 *space;
	int i, error = 0;

	if (!f)
		return -ENOMEM;
	f->card = card;
	f->chip = chip;
	space = f->space;
	put16(space + PCI_SUBSYSTEM_VENDOR_ID, 0x1f36);
	put16(space + PCI_SUBSYSTEM_ID, 0x7000);
	space[EXPRESS + PCI_CAP_LIST_NEXT] = POWER;
	space[POWER] = PCI_CAP_ID_PM;
	put16(space + POWER + PCI_PM_PMC, 3);
	put16(space + POWER + PCI_PM_CTRL, PCI_PM_CTRL_NO_SOFT_RESET);
	if (!vfs)
		return 0;
	put32(space + AER, PCI_EXT_CAP_ID_ERR | 1 << 16 | SRIOV << 20);
	put32(space + SRIOV, PCI_EXT_CAP_ID_SRIOV | 1 << 16);
	put16(space + SRIOV + PCI_SRIOV_INITIAL_VF, vfs);
	put16(space + SRIOV + PCI_SRIOV_TOTAL_VF, vfs);
	put16(space + SRIOV + PCI_SRIOV_VF_OFFSET, 1);
	put16(space + SRIOV + PCI_SRIOV_VF_STRIDE, 1);
	put16(space + SRIOV + PCI_SRIOV_VF_DID, device_ids[chips]);
	put32(space + SRIOV + PCI_SRIOV_SUP_PGSIZE, 0x553);
	put32(space + SRIOV + PCI_SRIOV_SYS_PGSIZE, 1);
	for (i = 1; i <= vfs && !error; i++)
		error = add_virtual(f, i);
	return error;
}

static bool answers(const struct function *f)
{
	if (!f || f->gone)
		return false;
	if (f->kind == VIRTUAL)
		return answers(f->physical) &&
		       get16(f->physical->space + SRIOV + PCI_SRIOV_CTRL) & PCI_SRIOV_CTRL_VFE;
	return true;
}

static int read_space(struct pci_bus *bus, unsigned int devfn, int where, int size, u32 *value)
{
	struct function *f = find(bus->number, devfn);

	PCI_SET_ERROR_RESPONSE(value);
	if (!answers(f))
		return PCIBIOS_DEVICE_NOT_FOUND;
	if (f->ones)
		return PCIBIOS_SUCCESSFUL;
	*value = 0;
	memcpy(value, f->space + where, size);
	return PCIBIOS_SUCCESSFUL;
}

static bool writable(const struct function *f, int at)
{
	switch (at) {
	case PCI_COMMAND ... PCI_COMMAND + 1:
	case PCI_INTERRUPT_LINE:
	case EXPRESS + PCI_EXP_DEVCTL ... EXPRESS + PCI_EXP_DEVCTL + 1:
	case EXPRESS + PCI_EXP_RTCTL ... EXPRESS + PCI_EXP_RTCTL + 1:
	case AER + PCI_ERR_UNCOR_MASK ... AER + PCI_ERR_UNCOR_SEVER + 3:
	case AER + PCI_ERR_COR_MASK ... AER + PCI_ERR_COR_MASK + 3:
	case AER + PCI_ERR_ROOT_COMMAND ... AER + PCI_ERR_ROOT_COMMAND + 3:
		return true;
	case PCI_PRIMARY_BUS ... PCI_SUBORDINATE_BUS:
		return f->kind == PORT;
	case POWER + PCI_PM_CTRL:
		return f->kind == PHYSICAL;
	case SRIOV + PCI_SRIOV_CTRL ... SRIOV + PCI_SRIOV_CTRL + 1:
	case SRIOV + PCI_SRIOV_NUM_VF ... SRIOV + PCI_SRIOV_NUM_VF + 1:
		return f->kind == PHYSICAL && vfs;
	}
	return false;
}

static int write_space(struct pci_bus *bus, unsigned int devfn, int where, int size, u32 value)
{
	struct function *f = find(bus->number, devfn);
	int i;

	if (!answers(f))
		return PCIBIOS_DEVICE_NOT_FOUND;
	if (f->ones)
		return PCIBIOS_SUCCESSFUL;
	for (i = 0; i < size; i++, value >>= 8)
		if (writable(f, where + i))
			f->space[where + i] = value;
	return PCIBIOS_SUCCESSFUL;
}

static struct pci_ops operations = { .read = read_space, .write = write_space };

int spu_host_place(struct pci_dev *dev, int *card, int *chip)
{
	struct function *f = find(dev->bus->number, dev->devfn);

	if (!f)
		return -ENODEV;
	*card = f->card;
	*chip = f->chip;
	return 0;
}
EXPORT_SYMBOL_GPL(spu_host_place);

/* -- what the platform gives a function besides its configuration space -------------- */

static bool ours(struct pci_dev *dev)
{
	return dev->bus->ops == &operations;
}

/* Runs before a driver is looked for. */
static int prepare(struct notifier_block *block, unsigned long action, void *data)
{
	struct pci_dev *dev = to_pci_dev(data);

	if (!ours(dev))
		return NOTIFY_DONE;
	if (action == BUS_NOTIFY_ADD_DEVICE && pci_pcie_type(dev) == PCI_EXP_TYPE_ROOT_PORT)
		dev->irq = port_irq; /* for the kernel's AER service */
	return NOTIFY_OK;
}

static struct notifier_block notifier = { .notifier_call = prepare };

/* -- commands ------------------------------------------------------------------------ */

static struct pci_dev *held;

static void release(void)
{
	if (!held)
		return;
	pci_cfg_access_unlock(held);
	pci_dev_put(held);
	held = NULL;
}

static int hold(struct function *f)
{
	if (held)
		return -EBUSY;
	held = pci_get_domain_bus_and_slot(domain, f->bus, f->devfn);
	if (!held)
		return -ENODEV;
	pci_cfg_access_lock(held);
	return 0;
}

static int carry_out(struct function *f, const char *verb, unsigned int a, unsigned int b)
{
	if (!strcmp(verb, "gone"))
		f->gone = true;
	else if (!strcmp(verb, "ones"))
		f->ones = true;
	else if (!strcmp(verb, "back"))
		f->gone = f->ones = false;
	else if (!strcmp(verb, "link"))
		set_link(f, a, b);
	else if (!strcmp(verb, "most"))
		set_link_capability(f, a, b);
	else if (!strcmp(verb, "hold"))
		return hold(f);
	else if (!strcmp(verb, "release"))
		release();
	else
		return -EINVAL;
	return 0;
}

static ssize_t command(struct file *file, const char __user *text, size_t size, loff_t *offset)
{
	char line[80] = {}, verb[16];
	unsigned int dom, bus, slot, func, a = 0, b = 0;
	struct function *f;
	int error;

	if (size >= sizeof(line))
		return -EINVAL;
	if (copy_from_user(line, text, size))
		return -EFAULT;
	if (sscanf(line, "%x:%x:%x.%x %15s %u %u", &dom, &bus, &slot, &func, verb, &a, &b) < 5)
		return -EINVAL;
	f = dom == domain ? find(bus, PCI_DEVFN(slot, func)) : NULL;
	if (!f)
		return -ENODEV;
	error = carry_out(f, verb, a, b);
	return error ?: size;
}

static const struct proc_ops commands = { .proc_write = command, .proc_lseek = noop_llseek };

/* -- building it --------------------------------------------------------------------- */

static int root_bus(int socket)
{
	return socket ? 0x90 : 0x30;
}

/* Gives the last bus that the card takes, or an error. */
static int build_card(int card, int root, int slot, int bus)
{
	int chips = cards[card], last = chips > 1 ? bus + 1 + chips : bus, chip, error;

	error = add_port(root, PCI_DEVFN(slot, 0), PCI_EXP_TYPE_ROOT_PORT, bus, last);
	if (!error && chips == 1)
		error = add_chip(bus, card, 0, chips);
	if (!error && chips > 1)
		error = add_port(bus, 0, PCI_EXP_TYPE_UPSTREAM, bus + 1, last);
	for (chip = 0; chips > 1 && chip < chips && !error; chip++) {
		error = add_port(bus + 1, PCI_DEVFN(chip, 0), PCI_EXP_TYPE_DOWNSTREAM,
				 bus + 2 + chip, bus + 2 + chip);
		if (!error)
			error = add_chip(bus + 2 + chip, card, chip, chips);
	}
	return error ?: last;
}

static int build(void)
{
	int socket, card, slot, last;

	for (socket = 0; socket < sockets; socket++) {
		last = root_bus(socket);
		slot = 1;
		for (card = socket * card_count / sockets;
		     card < (socket + 1) * card_count / sockets; card++, slot++) {
			last = build_card(card, root_bus(socket), slot, last + 1);
			if (last < 0)
				return last;
		}
	}
	return 0;
}

static int enumerate(int socket)
{
	LIST_HEAD(resources);

	sysdata[socket] = (struct pci_sysdata){
		.domain = domain,
		.node = numa ? socket : NUMA_NO_NODE,
	};
	bus_numbers[socket] = (struct resource){
		.start = root_bus(socket),
		.end = root_bus(socket) + 0x5f,
		.flags = IORESOURCE_BUS,
	};
	pci_add_resource(&resources, &bus_numbers[socket]);
	pci_add_resource(&resources, &ioport_resource);
	pci_add_resource(&resources, &iomem_resource);
	roots[socket] = pci_create_root_bus(NULL, root_bus(socket), &operations,
					    &sysdata[socket], &resources);
	if (!roots[socket]) {
		pci_free_resource_list(&resources);
		return -ENODEV;
	}
	pci_scan_child_bus(roots[socket]);
	pci_bus_add_devices(roots[socket]);
	return 0;
}

static void tear_down(void)
{
	struct function *f, *next;
	int socket;

	remove_proc_entry("spu_host", NULL);
	release();
	pci_lock_rescan_remove();
	for (socket = 0; socket < SOCKETS; socket++) {
		if (!roots[socket])
			continue;
		pci_stop_root_bus(roots[socket]);
		pci_remove_root_bus(roots[socket]);
	}
	pci_unlock_rescan_remove();
	bus_unregister_notifier(&pci_bus_type, &notifier);
	if (port_irq > 0)
		irq_free_desc(port_irq);
	list_for_each_entry_safe(f, next, &functions, list)
		kfree(f);
}

static bool sensible(void)
{
	int card;

	for (card = 0; card < card_count; card++)
		if (cards[card] < 1 || cards[card] > 3)
			return false;
	return sockets >= 1 && sockets <= SOCKETS && vfs >= 0 && vfs <= VFS;
}

static int __init begin(void)
{
	int socket, error;

	if (!sensible())
		return -EINVAL;
	/* Without an owner: ports that use it do not keep this module from being unloaded. */
	port_irq = __irq_alloc_descs(-1, 0, 1, NUMA_NO_NODE, NULL, NULL);
	if (port_irq < 0)
		return port_irq;
	irq_set_chip_and_handler(port_irq, &dummy_irq_chip, handle_simple_irq);
	bus_register_notifier(&pci_bus_type, &notifier);
	error = build();
	if (!error && !proc_create("spu_host", 0200, NULL, &commands))
		error = -ENOMEM;
	pci_lock_rescan_remove();
	for (socket = 0; socket < sockets && !error; socket++)
		error = enumerate(socket);
	pci_unlock_rescan_remove();
	if (error)
		tear_down();
	return error;
}

module_init(begin);
module_exit(tear_down);
MODULE_DESCRIPTION("PCI host bridges in memory, with SPU cards");
MODULE_LICENSE("Dual BSD/GPL");
