// Plain image records of a batch, read into the rows of one array without a Python object for each of them.
//
// What is no plain record, or cannot be read, is left to Python, which says what is wrong with it.

#include <cmath>
#include <cstdint>
#include <cstring>
#include <sys/uio.h>

namespace {

constexpr int64_t HEAD = 8, IMAGE_HEADER = 24;  // RecordIO: magic, length; MXNet: flag, label, id, id2
constexpr uint32_t MAGIC = 0xCED7230A;
constexpr float MAX_SCALAR = 16777216.0f;
constexpr int64_t MAX_LENGTH = (int64_t{1} << 29) - 1;  // above are the bits that tell parts of a record apart

// Where the first marker of entropy-coded data begins: 0xFF that no 0x00 follows; -1 where there is none.
int64_t first_marker(const uint8_t* image, int64_t from, int64_t length) {
    while (from + 1 < length) {
        const void* found = std::memchr(image + from, 0xFF, length - 1 - from);
        if (!found) return -1;
        from = static_cast<const uint8_t*>(found) - image;
        if (image[from + 1] != 0x00) return from;
        from += 2;
    }
    return -1;
}

}  // namespace

enum State : uint8_t {
    SOUND = 0,      // a JPEG with the known header whose first marker is its end
    READ = 1,       // all of it is in its row, and nothing is known of it
    CAREFULLY = 2,  // another kind of record, damaged, unreadable
    TOO_LONG = 3,   // does not fit in a row; its length is right
};

// count images: files, offsets, sizes [count] say where each record begins and about how many bytes it has.
// header [header_bytes]: of a sound JPEG, up to its entropy-coded data. rows [count][row_bytes]: an image each, zeros
// behind it. identities, lengths, states [count]: what was found.
extern "C" void pfc_read_rows(
    int64_t count, const int32_t* files, const int64_t* offsets, const int64_t* sizes, const uint8_t* header,
    int64_t header_bytes, uint8_t* rows, int64_t row_bytes, int64_t* identities, int64_t* lengths, uint8_t* states) {
    for (int64_t i = 0; i < count; ++i) {
        struct {
            uint32_t magic, word, flag;
            float label;
            uint64_t id, id2;
        } head;
        static_assert(sizeof(head) == HEAD + IMAGE_HEADER, "as it lies in the file");
        uint8_t* row = rows + i * row_bytes;
        int64_t wanted = sizes[i] - HEAD - IMAGE_HEADER;
        if (wanted > row_bytes) wanted = row_bytes;
        states[i] = CAREFULLY;
        lengths[i] = 0;
        identities[i] = -1;
        if (wanted <= 0) continue;
        iovec places[2] = {{&head, sizeof(head)}, {row, static_cast<size_t>(wanted)}};
        const int64_t got = preadv(files[i], places, 2, offsets[i]);
        if (got < HEAD + IMAGE_HEADER || head.magic != MAGIC || head.word > MAX_LENGTH || head.flag != 0) continue;
        const int64_t length = int64_t{head.word} - IMAGE_HEADER;
        if (length <= 0 || !(head.label >= 0.0f && head.label < MAX_SCALAR) || head.label != std::floor(head.label))
            continue;
        lengths[i] = length;
        identities[i] = static_cast<int64_t>(head.label);
        if (length > row_bytes) {
            states[i] = TOO_LONG;
            continue;
        }
        if (got < HEAD + IMAGE_HEADER + length) continue;  // longer than thought, or the file ends early
        std::memset(row + length, 0, row_bytes - length);
        const bool sound = length >= header_bytes + 2 && std::memcmp(row, header, header_bytes) == 0 &&
                           first_marker(row, header_bytes, length) == length - 2 && row[length - 1] == 0xD9;
        states[i] = sound ? SOUND : READ;
    }
}
