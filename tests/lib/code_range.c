#include "tests/lib/code_range.h"

#include <link.h>
#include <string.h>

struct search {
    const char *name;
    struct code_range found;
};

static int look_at(struct dl_phdr_info *info, size_t size, void *arg) {
    struct search *search = arg;
    (void)size;
    if (!strstr(info->dlpi_name, search->name))
        return 0;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *header = &info->dlpi_phdr[i];
        if (header->p_type == PT_LOAD && (header->p_flags & PF_X)) {
            search->found.begin = info->dlpi_addr + header->p_vaddr;
            search->found.end = search->found.begin + header->p_memsz;
        }
    }
    return 1;
}

struct code_range code_range_of(const char *name) {
    struct search search = {.name = name};
    dl_iterate_phdr(look_at, &search);
    return search.found;
}

bool code_range_has(const struct code_range *range, const void *address) {
    return (uintptr_t)address >= range->begin && (uintptr_t)address < range->end;
}
