#include "compiler/ingest/metadata_config.h"

#include "compiler/ingest/peft_config.h"

static bool refuse_second(const hlc_safetensors *table, const hlc_string *first, const hlc_metadata *second,
                          hlc_faults *faults) {
    hlc_string key;
    if (!hlc_metadata_copy_key(second, &key)) {
        hlc_out_of_memory(faults, table->path, second->key_length);
        return false;
    }
    char place[HLC_PLACE_SIZE], other[HLC_PLACE_SIZE];
    hlc_place(place, "metadata key", first->bytes, first->length);
    hlc_error(faults, HLC_FAULT_AMBIGUOUS, table->path, place, "there is a second configuration, under %s",
                  hlc_place(other, "metadata key", key.bytes, key.length));
    hlc_string_free(&key);
    return false;
}

/* Keeps the present value when it is a configuration. False after a fault. */
static bool consider(const hlc_safetensors *table, const hlc_metadata *metadata, hlc_string *text, hlc_string *key,
                     hlc_faults *faults) {
    hlc_string value;
    if (!hlc_metadata_copy_value(metadata, &value)) {
        hlc_out_of_memory(faults, table->path, metadata->value_length + 1);
        return false;
    }
    if (!hlc_json_has_key(value.bytes, value.length, "peft_type")) {
        hlc_string_free(&value);
        return true;
    }
    if (text->bytes) {
        hlc_string_free(&value);
        return refuse_second(table, key, metadata, faults);
    }
    *text = value;
    if (!hlc_metadata_copy_key(metadata, key)) {
        hlc_out_of_memory(faults, table->path, metadata->key_length + 1);
        return false;
    }
    return true;
}

bool hlc_metadata_config(const hlc_safetensors *table, hlc_string *text, hlc_string *key, hlc_faults *faults) {
    *text = *key = (hlc_string){0};
    hlc_metadata metadata;
    hlc_metadata_start(table, &metadata);
    bool ok = true;
    while (ok && hlc_metadata_next(&metadata))
        ok = consider(table, &metadata, text, key, faults);
    if (!ok) {
        hlc_string_free(text);
        hlc_string_free(key);
    }
    return ok;
}
