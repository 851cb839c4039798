/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
#ifndef SPU_HOST_H
#define SPU_HOST_H

#include <linux/pci.h>

/* Which card a function is on, and which chip of the card it is, both from 0. */
int spu_host_place(struct pci_dev *dev, int *card, int *chip);

#endif
