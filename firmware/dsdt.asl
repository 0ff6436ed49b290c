/* The DSDT of the q35 board (ACPI 6.4). Compiled by iasl at build time; what depends on the machine's size is
 * put in by acpi.c, the 64-bit PCI window, or comes from the SSDT of acpi_ssdt.c: the processors.
 *
 * PCI interrupts: the wiring is pirq_map() in devices/board/q35.c: slots 0 to 24 rotate over PIRQ E to H, 25 to 31
 * use A to D. In APIC mode PIRQ A to H are global interrupts 16 to 23, in PIC mode whatever the LPC bridge routes them
 * to. */
DefinitionBlock ("dsdt.aml", "DSDT", 2, "EIDOLN", "EIDOLON", 1)
{
    Name (\_S5, Package () { 0, 0, 0, 0 })  /* ACPI_S5_SLP_TYP of devices/board/acpi_pm.h */
    Name (\PICM, 0)
    Method (\_PIC, 1) { PICM = Arg0 }

    Scope (\_SB)
    {
        Device (PCI0)
        {
            Name (_HID, EisaId ("PNP0A08"))
            Name (_CID, EisaId ("PNP0A03"))
            Name (_UID, 0)
            Name (_SEG, 0)
            Name (_BBN, 0)

            /* acpi.c fills in the 64-bit window, the first QWord descriptor in this table. */
            Name (_CRS, ResourceTemplate ()
            {
                QWordMemory (ResourceProducer, PosDecode, MinFixed, MaxFixed, Cacheable, ReadWrite,
                             0, 0x8000000000, 0x8fffffffff, 0, 0x1000000000)
                WordBusNumber (ResourceProducer, MinFixed, MaxFixed, PosDecode, 0, 0, 0xff, 0, 0x100)
                IO (Decode16, 0x0cf8, 0x0cf8, 1, 8)
                WordIO (ResourceProducer, MinFixed, MaxFixed, PosDecode, EntireRange, 0, 0x0000, 0x0cf7, 0, 0x0cf8)
                WordIO (ResourceProducer, MinFixed, MaxFixed, PosDecode, EntireRange, 0, 0x0d00, 0xffff, 0, 0xf300)
                DWordMemory (ResourceProducer, PosDecode, MinFixed, MaxFixed, Cacheable, ReadWrite,
                             0, 0x000a0000, 0x000bffff, 0, 0x00020000)
                DWordMemory (ResourceProducer, PosDecode, MinFixed, MaxFixed, NonCacheable, ReadWrite,
                             0, 0x80000000, 0xafffffff, 0, 0x30000000)
                DWordMemory (ResourceProducer, PosDecode, MinFixed, MaxFixed, NonCacheable, ReadWrite,
                             0, 0xc0000000, 0xfebfffff, 0, 0x3ec00000)
            })

            /* PCI Firmware Specification 3.2, 4.5.1: the operating system may have all the controls there are. */
            Method (_OSC, 4)
            {
                CreateDWordField (Arg3, 0, CDW1)
                If (Arg0 == ToUUID ("33DB4D5B-1FF7-401C-9657-7441C03DD766"))
                {
                    CreateDWordField (Arg3, 8, CDW3)
                    Local0 = CDW3 & 0x1f
                    If (Arg1 != 1)
                    {
                        CDW1 |= 0x08  /* unknown revision */
                    }
                    If (CDW3 != Local0)
                    {
                        CDW1 |= 0x10  /* capabilities masked */
                    }
                    CDW3 = Local0
                }
                Else
                {
                    CDW1 |= 0x04      /* unrecognized UUID */
                }
                Return (Arg3)
            }

#define APIC_SLOT(address, a, b, c, d) \
            Package () { address, 0, 0, a }, Package () { address, 1, 0, b }, \
            Package () { address, 2, 0, c }, Package () { address, 3, 0, d }
#define PIC_SLOT(address, a, b, c, d) \
            Package () { address, 0, a, 0 }, Package () { address, 1, b, 0 }, \
            Package () { address, 2, c, 0 }, Package () { address, 3, d, 0 }

            Name (PRTA, Package ()
            {
                APIC_SLOT (0x0000ffff, 20, 21, 22, 23), APIC_SLOT (0x0001ffff, 21, 22, 23, 20),
                APIC_SLOT (0x0002ffff, 22, 23, 20, 21), APIC_SLOT (0x0003ffff, 23, 20, 21, 22),
                APIC_SLOT (0x0004ffff, 20, 21, 22, 23), APIC_SLOT (0x0005ffff, 21, 22, 23, 20),
                APIC_SLOT (0x0006ffff, 22, 23, 20, 21), APIC_SLOT (0x0007ffff, 23, 20, 21, 22),
                APIC_SLOT (0x0008ffff, 20, 21, 22, 23), APIC_SLOT (0x0009ffff, 21, 22, 23, 20),
                APIC_SLOT (0x000affff, 22, 23, 20, 21), APIC_SLOT (0x000bffff, 23, 20, 21, 22),
                APIC_SLOT (0x000cffff, 20, 21, 22, 23), APIC_SLOT (0x000dffff, 21, 22, 23, 20),
                APIC_SLOT (0x000effff, 22, 23, 20, 21), APIC_SLOT (0x000fffff, 23, 20, 21, 22),
                APIC_SLOT (0x0010ffff, 20, 21, 22, 23), APIC_SLOT (0x0011ffff, 21, 22, 23, 20),
                APIC_SLOT (0x0012ffff, 22, 23, 20, 21), APIC_SLOT (0x0013ffff, 23, 20, 21, 22),
                APIC_SLOT (0x0014ffff, 20, 21, 22, 23), APIC_SLOT (0x0015ffff, 21, 22, 23, 20),
                APIC_SLOT (0x0016ffff, 22, 23, 20, 21), APIC_SLOT (0x0017ffff, 23, 20, 21, 22),
                APIC_SLOT (0x0018ffff, 20, 21, 22, 23), APIC_SLOT (0x0019ffff, 16, 17, 18, 19),
                APIC_SLOT (0x001affff, 16, 17, 18, 19), APIC_SLOT (0x001bffff, 16, 17, 18, 19),
                APIC_SLOT (0x001cffff, 16, 17, 18, 19), APIC_SLOT (0x001dffff, 16, 17, 18, 19),
                APIC_SLOT (0x001effff, 16, 17, 18, 19), APIC_SLOT (0x001fffff, 16, 17, 18, 19)
            })
            Name (PRTP, Package ()
            {
                PIC_SLOT (0x0000ffff, LNKE, LNKF, LNKG, LNKH), PIC_SLOT (0x0001ffff, LNKF, LNKG, LNKH, LNKE),
                PIC_SLOT (0x0002ffff, LNKG, LNKH, LNKE, LNKF), PIC_SLOT (0x0003ffff, LNKH, LNKE, LNKF, LNKG),
                PIC_SLOT (0x0004ffff, LNKE, LNKF, LNKG, LNKH), PIC_SLOT (0x0005ffff, LNKF, LNKG, LNKH, LNKE),
                PIC_SLOT (0x0006ffff, LNKG, LNKH, LNKE, LNKF), PIC_SLOT (0x0007ffff, LNKH, LNKE, LNKF, LNKG),
                PIC_SLOT (0x0008ffff, LNKE, LNKF, LNKG, LNKH), PIC_SLOT (0x0009ffff, LNKF, LNKG, LNKH, LNKE),
                PIC_SLOT (0x000affff, LNKG, LNKH, LNKE, LNKF), PIC_SLOT (0x000bffff, LNKH, LNKE, LNKF, LNKG),
                PIC_SLOT (0x000cffff, LNKE, LNKF, LNKG, LNKH), PIC_SLOT (0x000dffff, LNKF, LNKG, LNKH, LNKE),
                PIC_SLOT (0x000effff, LNKG, LNKH, LNKE, LNKF), PIC_SLOT (0x000fffff, LNKH, LNKE, LNKF, LNKG),
                PIC_SLOT (0x0010ffff, LNKE, LNKF, LNKG, LNKH), PIC_SLOT (0x0011ffff, LNKF, LNKG, LNKH, LNKE),
                PIC_SLOT (0x0012ffff, LNKG, LNKH, LNKE, LNKF), PIC_SLOT (0x0013ffff, LNKH, LNKE, LNKF, LNKG),
                PIC_SLOT (0x0014ffff, LNKE, LNKF, LNKG, LNKH), PIC_SLOT (0x0015ffff, LNKF, LNKG, LNKH, LNKE),
                PIC_SLOT (0x0016ffff, LNKG, LNKH, LNKE, LNKF), PIC_SLOT (0x0017ffff, LNKH, LNKE, LNKF, LNKG),
                PIC_SLOT (0x0018ffff, LNKE, LNKF, LNKG, LNKH), PIC_SLOT (0x0019ffff, LNKA, LNKB, LNKC, LNKD),
                PIC_SLOT (0x001affff, LNKA, LNKB, LNKC, LNKD), PIC_SLOT (0x001bffff, LNKA, LNKB, LNKC, LNKD),
                PIC_SLOT (0x001cffff, LNKA, LNKB, LNKC, LNKD), PIC_SLOT (0x001dffff, LNKA, LNKB, LNKC, LNKD),
                PIC_SLOT (0x001effff, LNKA, LNKB, LNKC, LNKD), PIC_SLOT (0x001fffff, LNKA, LNKB, LNKC, LNKD)
            })
            Method (_PRT, 0)
            {
                If (PICM)
                {
                    Return (PRTA)
                }
                Return (PRTP)
            }

            /* The LPC bridge and the ISA devices behind it. */
            Device (ISA)
            {
                Name (_ADR, 0x001f0000)
                OperationRegion (LPCC, PCI_Config, 0x60, 0x24)
                Field (LPCC, ByteAcc, NoLock, Preserve)
                {
                    PRQA, 8, PRQB, 8, PRQC, 8, PRQD, 8,
                    Offset (0x08),
                    PRQE, 8, PRQF, 8, PRQG, 8, PRQH, 8,
                    Offset (0x22),
                    CMAE, 1, CMBE, 1,           /* LPC_EN: COM1 and COM2 are there */
                    Offset (0x23), , 2, KBCE, 1 /* keyboard controller */
                }

#include "dsdt_isa.asl"
            }
        }

#include "dsdt_link.asl"
        LINK (LNKA, 0, PRQA)
        LINK (LNKB, 1, PRQB)
        LINK (LNKC, 2, PRQC)
        LINK (LNKD, 3, PRQD)
        LINK (LNKE, 4, PRQE)
        LINK (LNKF, 5, PRQF)
        LINK (LNKG, 6, PRQG)
        LINK (LNKH, 7, PRQH)

#include "dsdt_system.asl"
        /* What is taken but belongs to no driver: ECAM, ports of the chip set. */
        Device (MBRD)
        {
            Name (_HID, EisaId ("PNP0C02"))
            Name (_UID, 1)
            Name (_CRS, ResourceTemplate ()
            {
                Memory32Fixed (ReadWrite, 0xb0000000, 0x10000000)
                IO (Decode16, 0x0061, 0x0061, 1, 1)
                IO (Decode16, 0x0080, 0x0080, 1, 1)
                IO (Decode16, 0x0092, 0x0092, 1, 1)
                IO (Decode16, 0x00b2, 0x00b2, 1, 2)
                IO (Decode16, 0x0600, 0x0600, 1, 0x80)
            })
        }
    }
}
