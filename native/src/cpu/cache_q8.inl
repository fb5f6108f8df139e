// Blocks of the cache in 8 bits, unpacked to f16 one at a time while attention passes over them: they then
// lie in the first-level cache, and memory is read half as much.

void unpack(const PackedBlock& block, std::size_t head_dim, std::uint16_t* keys, std::uint16_t* values) {
    const std::size_t n_groups = cache_groups(head_dim);
    for (std::size_t d = 0; d < head_dim; ++d) {
        const float* scales = block.key_scales + d / kCacheGroup * kKeysPerBlock;
        for (std::size_t j = 0; j < kKeysPerBlock; j += kLanes) {
            const std::size_t at = d * kKeysPerBlock + j;
            (Floats::load_s8(block.keys + at) * Floats::load(scales + j)).store_f16(keys + at);
        }
    }
    for (std::size_t j = 0; j < kKeysPerBlock; ++j) {
        for (std::size_t d = 0; d < head_dim; d += kLanes) {
            const std::size_t at = j * head_dim + d;
            const Floats scale = Floats::all(block.value_scales[j * n_groups + d / kCacheGroup]);
            (Floats::load_s8(block.values + at) * scale).store_f16(values + at);
        }
    }
}
