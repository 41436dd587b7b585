// The kernels and parameter structs that were compiled in.
#include <cstring>
#include <vector>

#include "emulator.h"

namespace emu {
namespace {

struct Layout {
    const char* name;
    size_t size;
    const Field* fields;
    size_t count;

    bool operator==(const Layout& other) const {
        if (strcmp(name, other.name) != 0 || size != other.size || count != other.count) return false;
        for (size_t i = 0; i < count; i++) {
            const Field &a = fields[i], &b = other.fields[i];
            if (strcmp(a.name, b.name) != 0 || a.offset != b.offset || a.size != b.size) return false;
        }
        return true;
    }
};

std::vector<Kernel>& kernels() {
    static std::vector<Kernel> kernels;
    return kernels;
}
std::vector<Layout>& layouts() {
    static std::vector<Layout> layouts;
    return layouts;
}

}  // namespace

Registration::Registration(const Kernel& kernel) { kernels().push_back(kernel); }

// A struct of a header comes once from each file that includes it.
Registration::Registration(const char* name, size_t size, const Field* fields, size_t count) {
    const Layout layout{name, size, fields, count};
    for (const Layout& known : layouts()) {
        if (known == layout) return;
    }
    layouts().push_back(layout);
}

}  // namespace emu

using namespace emu;

extern "C" {

const Kernel* adali_emulator_kernel(const char* name, size_t length) {
    for (const Kernel& k : kernels()) {
        if (strlen(k.name) == length && memcmp(k.name, name, length) == 0) return &k;
    }
    return nullptr;
}
size_t adali_emulator_kernel_params(const Kernel* k) { return k->params; }
unsigned adali_emulator_kernel_threads(const Kernel* k) { return k->threads; }
const char* adali_emulator_kernel_name(size_t i) { return i < kernels().size() ? kernels()[i].name : nullptr; }

// The `i`-th parameter struct and the `f`-th of its fields; nullptr past the last.
const char* adali_emulator_layout(size_t i, size_t* size) {
    if (i >= layouts().size()) return nullptr;
    *size = layouts()[i].size;
    return layouts()[i].name;
}
const char* adali_emulator_field(size_t i, size_t f, size_t* offset, size_t* size) {
    if (f >= layouts()[i].count) return nullptr;
    const Field& field = layouts()[i].fields[f];
    *offset = field.offset;
    *size = field.size;
    return field.name;
}
}
