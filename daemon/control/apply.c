#include "daemon/control/apply.h"

#include "daemon/device.h"
#include "daemon/log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static void answer(struct peer *peer, const Convoy__Applied *applied) {
    Convoy__Message message = CONVOY__MESSAGE__INIT;
    message.body_case = CONVOY__MESSAGE__BODY_APPLIED;
    message.applied = (Convoy__Applied *)(uintptr_t)applied;
    conn_send(peer_conn(peer), &message);
}

static void refuse(struct peer *peer, uint64_t token, Convoy__Code code, const char *text) {
    Convoy__Applied applied = CONVOY__APPLIED__INIT;
    applied.token = token;
    applied.code = code;
    applied.text = (char *)(uintptr_t)text;
    answer(peer, &applied);
}

static void on_deployed(void *arg, const struct deploy_outcome *outcome) {
    static const uint8_t none[SHA256_SIZE];
    struct device *device = arg;
    Convoy__Applied applied = CONVOY__APPLIED__INIT;
    Convoy__DeviceReport reports[DEPLOY_STAGES_MAX], *pointers[DEPLOY_STAGES_MAX];
    struct peer *peer = device->apply.peer;
    device->apply.peer = NULL;
    if (!peer)
        return;
    for (size_t i = 0; i < outcome->devices_count; i++) {
        const struct deploy_device *each = &outcome->devices[i];
        convoy__device_report__init(&reports[i]);
        reports[i].node = each->node;
        reports[i].address = each->address;
        reports[i].code = each->code;
        reports[i].text = (char *)(uintptr_t)each->err.text;
        reports[i].part_bytes = each->part_bytes;
        reports[i].sent_bytes = each->sent_bytes;
        pointers[i] = &reports[i];
    }
    applied.token = device->apply.token;
    applied.code = outcome->code;
    applied.text = (char *)(uintptr_t)outcome->err.text;
    applied.plan.data = (uint8_t *)(uintptr_t)outcome->plan;
    applied.plan.len = memcmp(outcome->plan, none, SHA256_SIZE) == 0 ? 0 : SHA256_SIZE;
    applied.n_devices = outcome->devices_count;
    applied.devices = pointers;
    answer(peer, &applied);
}

static const struct {
    int rc;
    Convoy__Code code;
} codes[] = {
    {-EBUSY, CONVOY__CODE__CODE_BUSY},
    {-ENOTSUP, CONVOY__CODE__CODE_NO_PIPELINE},
    {-EINVAL, CONVOY__CODE__CODE_BAD_PLAN},
    {-ENOMEM, CONVOY__CODE__CODE_NO_MEMORY},
};

void apply_request(struct device *device, struct peer *peer, const Convoy__Apply *request) {
    struct deploy_stage stages[DEPLOY_STAGES_MAX];
    struct deploy_request wanted = {
        .stages = stages, .count = request->n_stages, .keep_addresses = true};
    Convoy__Code code = CONVOY__CODE__CODE_INTERNAL;
    struct err err = {""};
    int rc;
    if (request->n_stages == 0 || request->n_stages > DEPLOY_STAGES_MAX) {
        err_set(&err, -EINVAL, "%zu stages; 1 to %d can be deployed", request->n_stages,
                DEPLOY_STAGES_MAX);
        refuse(peer, request->token, CONVOY__CODE__CODE_BAD_PLAN, err.text);
        return;
    }
    for (size_t i = 0; i < request->n_stages; i++)
        stages[i] = (struct deploy_stage){.node = request->stages[i]->node,
                                          .address = request->stages[i]->address,
                                          .until_name = request->stages[i]->until,
                                          .shares = request->stages[i]->shares};
    if (request->model_digest.len == SHA256_SIZE)
        wanted.model_digest = request->model_digest.data;
    wanted.done = on_deployed;
    wanted.arg = device;
    rc = device->draining ? err_set(&err, -ECANCELED, "this device is shutting down")
                          : deploy_run(device, &wanted, &err);
    if (rc == 0) {
        log_info("%s wants another plan deployed", peer_name(peer));
        device->apply.peer = peer;
        device->apply.token = request->token;
        return;
    }
    for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++)
        if (codes[i].rc == rc)
            code = codes[i].code;
    refuse(peer, request->token, code, err.text);
}

void apply_peer_gone(struct device *device, const struct peer *peer) {
    if (device->apply.peer == peer)
        device->apply.peer = NULL;
}
