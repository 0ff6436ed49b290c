/* Names and layouts of the NVM Express Base Specification, revision 1.4. Everything is little-endian, as the host is. */
#ifndef EIDOLON_DEVICES_STORAGE_NVME_SPEC_H
#define EIDOLON_DEVICES_STORAGE_NVME_SPEC_H

#include <assert.h>

#include "base/types.h"

/* ---- Registers (3.1) ---- */

enum {
    NVME_REG_CAP = 0x00,
    NVME_REG_VS = 0x08,
    NVME_REG_INTMS = 0x0c,
    NVME_REG_INTMC = 0x10,
    NVME_REG_CC = 0x14,
    NVME_REG_CSTS = 0x1c,
    NVME_REG_NSSR = 0x20,
    NVME_REG_AQA = 0x24,
    NVME_REG_ASQ = 0x28,
    NVME_REG_ACQ = 0x30,
    NVME_REG_DOORBELLS = 0x1000,
};
enum {
    NVME_CC_ENABLE = 1 << 0,
    NVME_CC_CSS_SHIFT = 4,     /* 3 bits: command set */
    NVME_CC_MPS_SHIFT = 7,     /* 4 bits: memory page size, 2^(12 + n) */
    NVME_CC_AMS_SHIFT = 11,    /* 3 bits: arbitration */
    NVME_CC_SHN_SHIFT = 14,    /* 2 bits: shutdown notification */
    NVME_CC_IOSQES_SHIFT = 16, /* 4 bits: log2 of an entry of an I/O submission queue */
    NVME_CC_IOCQES_SHIFT = 20,
    NVME_CC_WRITABLE = 0x00fffff1,
};
enum {
    NVME_CSTS_READY = 1 << 0,
    NVME_CSTS_FATAL = 1 << 1,
    NVME_CSTS_SHUTDOWN_UNDER_WAY = 1 << 2,
    NVME_CSTS_SHUTDOWN_COMPLETE = 2 << 2,
    NVME_CSTS_SHUTDOWN = 3 << 2,
};
#define NVME_VERSION           0x00010400u
/* 15:0 entries of a queue less one, 16 contiguous queues only, 31:24 time-out in 500 ms, 37 the NVM command set,
 * 51:48 smallest page 4 KiB, 55:52 largest 64 KiB */
#define NVME_MAX_QUEUE_ENTRIES 2048u
#define NVME_CAP               ((NVME_MAX_QUEUE_ENTRIES - 1) | BIT(16) | 0x3cull << 24 | BIT(37) | 4ull << 52)

/* ---- Queue entries (4.2, 4.6) ---- */

struct nvme_sqe {
    uint8_t opcode;
    uint8_t flags; /* 1:0 fused operation, 7:6 PRP or SGL */
    uint16_t cid;
    uint32_t nsid;
    uint32_t cdw2, cdw3;
    uint64_t metadata;
    uint64_t prp1, prp2; /* or an SGL descriptor */
    uint32_t cdw10, cdw11, cdw12, cdw13, cdw14, cdw15;
};
static_assert(sizeof(struct nvme_sqe) == 64, "submission queue entry");

struct nvme_cqe {
    uint32_t dw0, dw1;
    uint16_t sq_head, sq_id;
    uint16_t cid;
    uint16_t status; /* bit 0: phase */
};
static_assert(sizeof(struct nvme_cqe) == 16, "completion queue entry");

struct nvme_sgl {
    uint64_t address;
    uint32_t length;
    uint8_t reserved[3];
    uint8_t type; /* 7:4 type, 3:0 subtype */
};
static_assert(sizeof(struct nvme_sgl) == 16, "SGL descriptor");
enum { NVME_SGL_DATA = 0, NVME_SGL_SEGMENT = 2, NVME_SGL_LAST_SEGMENT = 3 };

enum {
    NVME_ADMIN_DELETE_SQ = 0x00,
    NVME_ADMIN_CREATE_SQ = 0x01,
    NVME_ADMIN_GET_LOG = 0x02,
    NVME_ADMIN_DELETE_CQ = 0x04,
    NVME_ADMIN_CREATE_CQ = 0x05,
    NVME_ADMIN_IDENTIFY = 0x06,
    NVME_ADMIN_ABORT = 0x08,
    NVME_ADMIN_SET_FEATURES = 0x09,
    NVME_ADMIN_GET_FEATURES = 0x0a,
    NVME_ADMIN_ASYNC_EVENT = 0x0c,
};
enum {
    NVME_IO_FLUSH = 0x00,
    NVME_IO_WRITE = 0x01,
    NVME_IO_READ = 0x02,
    NVME_IO_COMPARE = 0x05,
    NVME_IO_WRITE_ZEROES = 0x08,
    NVME_IO_DATASET_MANAGEMENT = 0x09,
    NVME_IO_VERIFY = 0x0c,
};

/* Status field of a completion without its phase (4.6.1): 14 do not retry, 13 more in the error log, 10:8 type, 7:0
 * code. */
enum {
    NVME_OK = 0x000,
    NVME_INVALID_OPCODE = 0x001,
    NVME_INVALID_FIELD = 0x002,
    NVME_DATA_TRANSFER_ERROR = 0x004,
    NVME_INTERNAL_ERROR = 0x006,
    NVME_ABORT_REQUESTED = 0x007,
    NVME_INVALID_NAMESPACE = 0x00b,
    NVME_SGL_INVALID_SEGMENT = 0x00d,
    NVME_SGL_INVALID_COUNT = 0x00e,
    NVME_SGL_INVALID_LENGTH = 0x00f,
    NVME_SGL_INVALID_TYPE = 0x011,
    NVME_INVALID_PRP_OFFSET = 0x013,
    NVME_WRITE_PROTECTED = 0x020,
    NVME_LBA_OUT_OF_RANGE = 0x080,
    NVME_CAPACITY_EXCEEDED = 0x081,
    NVME_INVALID_CQ = 0x100,
    NVME_INVALID_QID = 0x101,
    NVME_INVALID_QUEUE_SIZE = 0x102,
    NVME_TOO_MANY_EVENTS = 0x105,
    NVME_INVALID_VECTOR = 0x108,
    NVME_INVALID_LOG_PAGE = 0x109,
    NVME_INVALID_QUEUE_DELETION = 0x10c,
    NVME_NOT_SAVEABLE = 0x10d,
    NVME_NOT_CHANGEABLE = 0x10e,
    NVME_WRITE_FAULT = 0x280,
    NVME_READ_ERROR = 0x281,
    NVME_COMPARE_FAILURE = 0x285,
    NVME_MORE = 1 << 13,
    NVME_DO_NOT_RETRY = 1 << 14,
};

/* ---- Identify (5.15) ---- */

enum {
    NVME_CNS_NAMESPACE = 0x00,
    NVME_CNS_CONTROLLER = 0x01,
    NVME_CNS_ACTIVE_LIST = 0x02,
    NVME_CNS_DESCRIPTORS = 0x03,
    NVME_CNS_SET_NAMESPACE = 0x05,
    NVME_CNS_SET_CONTROLLER = 0x06,
};

struct nvme_power_state {
    uint16_t max_power; /* in 10 mW */
    uint8_t reserved2, flags;
    uint32_t entry_latency, exit_latency;
    uint8_t reserved12[20];
};
static_assert(sizeof(struct nvme_power_state) == 32, "power state descriptor");

struct nvme_id_controller {
    uint16_t vid, ssvid;
    char serial[20], model[40], firmware[8];
    uint8_t rab, ieee[3], cmic, mdts;
    uint16_t cntlid;
    uint32_t version, rtd3r, rtd3e, oaes, ctratt;
    uint16_t rrls;
    uint8_t reserved102[9], cntrltype, fguid[16];
    uint8_t reserved128[128];
    uint16_t oacs;
    uint8_t acl, aerl, frmw, lpa, elpe, npss, avscc, apsta;
    uint16_t wctemp, cctemp, mtfa;
    uint32_t hmpre, hmmin;
    uint8_t tnvmcap[16], unvmcap[16];
    uint32_t rpmbs;
    uint16_t edstt;
    uint8_t dsto, fwug;
    uint16_t kas, hctma, mntmt, mxtmt;
    uint32_t sanicap, hmminds;
    uint16_t hmmaxd, nsetidmax, endgidmax;
    uint8_t anatt, anacap;
    uint32_t anagrpmax, nanagrpid, pels;
    uint8_t reserved356[156];
    uint8_t sqes, cqes;
    uint16_t maxcmd;
    uint32_t nn;
    uint16_t oncs, fuses;
    uint8_t fna, vwc;
    uint16_t awun, awupf;
    uint8_t nvscc, nwpc;
    uint16_t acwu;
    uint8_t reserved534[2];
    uint32_t sgls, mnan;
    uint8_t reserved544[224];
    char subnqn[256];
    uint8_t reserved1024[1024];
    struct nvme_power_state power[32];
    uint8_t vendor[1024];
};
static_assert(sizeof(struct nvme_id_controller) == 4096, "identify controller");
static_assert(offsetof(struct nvme_id_controller, oacs) == 256, "identify controller");
static_assert(offsetof(struct nvme_id_controller, rpmbs) == 312, "identify controller");
static_assert(offsetof(struct nvme_id_controller, sanicap) == 328, "identify controller");
static_assert(offsetof(struct nvme_id_controller, sqes) == 512, "identify controller");
static_assert(offsetof(struct nvme_id_controller, sgls) == 536, "identify controller");
static_assert(offsetof(struct nvme_id_controller, subnqn) == 768, "identify controller");
static_assert(offsetof(struct nvme_id_controller, power) == 2048, "identify controller");

struct nvme_lba_format {
    uint16_t metadata_size;
    uint8_t data_size; /* log2 */
    uint8_t performance;
};

struct nvme_id_namespace {
    uint64_t nsze, ncap, nuse;
    uint8_t nsfeat, nlbaf, flbas, mc, dpc, dps, nmic, rescap, fpi, dlfeat;
    uint16_t nawun, nawupf, nacwu, nabsn, nabo, nabspf, noiob;
    uint8_t nvmcap[16];
    uint16_t npwg, npwa, npdg, npda, nows;
    uint8_t reserved74[18];
    uint32_t anagrpid;
    uint8_t reserved96[3], nsattr;
    uint16_t nvmsetid, endgid;
    uint8_t nguid[16], eui64[8];
    struct nvme_lba_format lbaf[16];
    uint8_t reserved192[192], vendor[3712];
};
static_assert(sizeof(struct nvme_id_namespace) == 4096, "identify namespace");
static_assert(offsetof(struct nvme_id_namespace, npwg) == 64, "identify namespace");
static_assert(offsetof(struct nvme_id_namespace, nguid) == 104, "identify namespace");
static_assert(offsetof(struct nvme_id_namespace, lbaf) == 128, "identify namespace");

/* ---- Log pages (5.14.1) ---- */

enum {
    NVME_LOG_ERRORS = 0x01,
    NVME_LOG_SMART = 0x02,
    NVME_LOG_FIRMWARE = 0x03,
    NVME_LOG_CHANGED_NAMESPACES = 0x04,
    NVME_LOG_COMMANDS = 0x05,
};

struct nvme_error_entry {
    uint64_t count; /* 0: no entry */
    uint16_t sq_id, cid, status, location;
    uint64_t lba;
    uint32_t nsid;
    uint8_t vendor, transport, reserved30[2];
    uint64_t specific;
    uint16_t transport_specific;
    uint8_t reserved42[22];
};
static_assert(sizeof(struct nvme_error_entry) == 64, "error log entry");

struct nvme_smart {
    uint8_t critical, temperature[2], spare, spare_threshold, used, endurance_critical, reserved7[25];
    /* 128-bit counters, low half first */
    uint64_t units_read[2], units_written[2], reads[2], writes[2], busy_minutes[2], power_cycles[2], power_hours[2],
        unsafe_shutdowns[2], media_errors[2], error_entries[2];
    uint32_t warning_minutes, critical_minutes;
    uint16_t sensors[8];
    uint8_t reserved216[296];
};
static_assert(sizeof(struct nvme_smart) == 512, "SMART log");

/* ---- Features (5.21.1) ---- */

enum {
    NVME_FEATURE_ARBITRATION = 0x01,
    NVME_FEATURE_POWER = 0x02,
    NVME_FEATURE_TEMPERATURE = 0x04,
    NVME_FEATURE_ERROR_RECOVERY = 0x05,
    NVME_FEATURE_WRITE_CACHE = 0x06,
    NVME_FEATURE_QUEUES = 0x07,
    NVME_FEATURE_COALESCING = 0x08,
    NVME_FEATURE_VECTOR = 0x09,
    NVME_FEATURE_ATOMICITY = 0x0a,
    NVME_FEATURE_EVENTS = 0x0b,
    NVME_FEATURE_TIMESTAMP = 0x0e,
};

/* ---- Asynchronous events (5.2) ---- */

enum { NVME_EVENT_ERROR = 0, NVME_EVENT_SMART = 1, NVME_EVENT_NOTICE = 2 };
enum {
    NVME_EVENT_BAD_DOORBELL = 0,
    NVME_EVENT_BAD_DOORBELL_VALUE = 1,
    NVME_EVENT_TEMPERATURE = 1,
    NVME_EVENT_NAMESPACE_CHANGED = 0,
};
enum { NVME_AEC_TEMPERATURE = 1 << 1, NVME_AEC_NAMESPACE = 1 << 8, NVME_AEC_SUPPORTED = 0x1f | NVME_AEC_NAMESPACE };

#endif
