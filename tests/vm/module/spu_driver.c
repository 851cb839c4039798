// SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause
/*
 * A driver that gives each SPU function its character devices.
 *
 * How the vendor's driver names and places its nodes is not published, so all of it is an
 * option here. Reading a node gives the bus id of its function, and fails with ENODEV once
 * that has left.
 */
#include <linux/cdev.h>
#include <linux/module.h>
#include <linux/pci.h>
#include <linux/pm_runtime.h>

#include "spu_host.h"

#define NODES 256
#define PER_CHIP 4

static char *names = "mxspu%n";
module_param(names, charp, 0444);
MODULE_PARM_DESC(names, "%n chip of the node, %c card, %k chip of the card, %p node of the chip, %m minor");
static char *class = "mxspu";
module_param(class, charp, 0444);
static char *folder = "";
module_param(folder, charp, 0444);
MODULE_PARM_DESC(folder, "below /dev, such as accel/");
static bool parent = true;
module_param(parent, bool, 0444);
MODULE_PARM_DESC(parent, "whether nodes are below their function in sysfs");
static int per_chip = 1;
module_param(per_chip, int, 0444);
static char *control = "";
module_param(control, charp, 0444);
MODULE_PARM_DESC(control, "a node that all chips share");
static bool cyclic;
module_param(cyclic, bool, 0444);
MODULE_PARM_DESC(cyclic, "whether a minor number is used again only after all others");

struct chip {
	int number;
	int minors[PER_CHIP];
};

static dev_t first;
static struct class *nodes;
static struct cdev cdev;
static DEFINE_MUTEX(lock);
static DECLARE_BITMAP(numbers, NODES);
static DECLARE_BITMAP(minors, NODES);
static int next_minor;
static char owners[NODES][24];
static int control_minor = -1;

static int take_minor(const char *owner)
{
	int minor;

	mutex_lock(&lock);
	minor = find_next_zero_bit(minors, NODES, cyclic ? next_minor : 0);
	if (minor >= NODES)
		minor = find_first_zero_bit(minors, NODES);
	if (minor >= NODES) {
		minor = -ENOSPC;
	} else {
		set_bit(minor, minors);
		strscpy(owners[minor], owner, sizeof(owners[minor]));
		next_minor = minor + 1;
	}
	mutex_unlock(&lock);
	return minor;
}

static void give_back_minor(int minor)
{
	mutex_lock(&lock);
	owners[minor][0] = '\0';
	clear_bit(minor, minors);
	mutex_unlock(&lock);
}

static int open_node(struct inode *inode, struct file *file)
{
	int minor = iminor(inode) - MINOR(first);

	file->private_data = owners[minor];
	return owners[minor][0] ? 0 : -ENODEV;
}

static ssize_t read_node(struct file *file, char __user *to, size_t size, loff_t *offset)
{
	char owner[sizeof(owners[0])];

	mutex_lock(&lock);
	strscpy(owner, file->private_data, sizeof(owner));
	mutex_unlock(&lock);
	if (!owner[0])
		return -ENODEV;
	return simple_read_from_buffer(to, size, offset, owner, strlen(owner));
}

static const struct file_operations operations = {
	.owner = THIS_MODULE,
	.open = open_node,
	.read = read_node,
};

static char *place_node(struct device *dev, umode_t *mode)
{
	/* NULL for the kernel's own way, which knows names with a slash. */
	return *folder ? kasprintf(GFP_KERNEL, "%s%s", folder, dev_name(dev)) : NULL;
}

/* Writes the name of a node, by the template, to `name`. */
static void fill_in(char *name, size_t size, int number, int card, int chip, int node, int minor)
{
	size_t used = 0;
	const char *c;

	for (c = names; *c && used + 1 < size; c++) {
		if (*c != '%')
			used += scnprintf(name + used, size - used, "%c", *c);
		else if (*++c)
			used += scnprintf(name + used, size - used, "%d",
					  *c == 'c' ? card : *c == 'k' ? chip :
					  *c == 'p' ? node : *c == 'm' ? minor : number);
		else
			break;
	}
}

static void drop_nodes(struct chip *chip)
{
	int i;

	for (i = 0; i < per_chip; i++) {
		if (chip->minors[i] < 0)
			continue;
		device_destroy(nodes, first + chip->minors[i]);
		give_back_minor(chip->minors[i]);
	}
	mutex_lock(&lock);
	clear_bit(chip->number, numbers);
	mutex_unlock(&lock);
}

static int make_node(struct pci_dev *dev, struct chip *chip, int node, int card, int place)
{
	char name[64];
	struct device *made;
	int minor = take_minor(pci_name(dev));

	if (minor < 0)
		return minor;
	fill_in(name, sizeof(name), chip->number, card, place, node, minor);
	made = device_create(nodes, parent ? &dev->dev : NULL, first + minor, NULL, "%s", name);
	if (IS_ERR(made)) {
		give_back_minor(minor);
		return PTR_ERR(made);
	}
	chip->minors[node] = minor;
	return 0;
}

static int probe(struct pci_dev *dev, const struct pci_device_id *id)
{
	struct chip *chip = devm_kzalloc(&dev->dev, sizeof(*chip), GFP_KERNEL);
	int i, card, place, error;

	if (!chip)
		return -ENOMEM;
	error = spu_host_place(dev, &card, &place) ?: pci_enable_device(dev);
	if (error)
		return error;
	mutex_lock(&lock);
	chip->number = find_first_zero_bit(numbers, NODES);
	set_bit(chip->number, numbers);
	mutex_unlock(&lock);
	for (i = 0; i < PER_CHIP; i++)
		chip->minors[i] = -1;
	for (i = 0; i < per_chip && !error; i++)
		error = make_node(dev, chip, i, card, place);
	if (error) {
		drop_nodes(chip);
		pci_disable_device(dev);
		return error;
	}
	pci_set_drvdata(dev, chip);
	/* Asleep whenever power/control is auto: nobody here uses the hardware. */
	pm_runtime_put_noidle(&dev->dev);
	return 0;
}

static void leave(struct pci_dev *dev)
{
	pm_runtime_get_noresume(&dev->dev);
	drop_nodes(pci_get_drvdata(dev));
	pci_disable_device(dev);
}

static int sleep_or_wake(struct device *dev)
{
	return 0;
}

static DEFINE_RUNTIME_DEV_PM_OPS(power, sleep_or_wake, sleep_or_wake, NULL);

static const struct pci_device_id ids[] = {
	{ .vendor = 0x1f36, .device = PCI_ANY_ID, .subvendor = PCI_ANY_ID,
	  .subdevice = PCI_ANY_ID, .class = 0x120000, .class_mask = 0xff0000 },
	{}
};

static struct pci_driver driver = {
	.name = "spu_driver",
	.id_table = ids,
	.probe = probe,
	.remove = leave,
	.sriov_configure = pci_sriov_configure_simple,
	.driver.pm = pm_ptr(&power),
};

static int make_control_node(void)
{
	struct device *made;

	control_minor = take_minor("control");
	if (control_minor < 0)
		return control_minor;
	made = device_create(nodes, NULL, first + control_minor, NULL, "%s", control);
	return PTR_ERR_OR_ZERO(made);
}

static int __init begin(void)
{
	int error;

	if (per_chip < 0 || per_chip > PER_CHIP)
		return -EINVAL;
	error = alloc_chrdev_region(&first, 0, NODES, "spu");
	if (error)
		return error;
	cdev_init(&cdev, &operations);
	cdev.owner = THIS_MODULE;
	error = cdev_add(&cdev, first, NODES);
	if (error)
		goto no_cdev;
	nodes = class_create(THIS_MODULE, class);
	error = PTR_ERR_OR_ZERO(nodes);
	if (error)
		goto no_class;
	nodes->devnode = place_node;
	if (*control)
		error = make_control_node();
	error = error ?: pci_register_driver(&driver);
	if (!error)
		return 0;
	if (control_minor >= 0)
		device_destroy(nodes, first + control_minor);
	class_destroy(nodes);
no_class:
	cdev_del(&cdev);
no_cdev:
	unregister_chrdev_region(first, NODES);
	return error;
}

static void __exit end(void)
{
	pci_unregister_driver(&driver);
	if (control_minor >= 0)
		device_destroy(nodes, first + control_minor);
	class_destroy(nodes);
	cdev_del(&cdev);
	unregister_chrdev_region(first, NODES);
}

module_init(begin);
module_exit(end);
MODULE_DESCRIPTION("Character devices for SPU functions");
MODULE_LICENSE("Dual BSD/GPL");
