//! Pickles as Python 2 has written those of CIFAR.

/// `{key: labels, "data": array of u8 [rows, 3072]}`, where `planes` may have another number of bytes.
pub fn cifar_pickle(key: &str, labels: &[u8], rows: usize, planes: &[u8]) -> Vec<u8> {
    let text = |text: &[u8]| [b"U", &[text.len() as u8][..], text].concat();
    let labels: Vec<u8> = labels.iter().flat_map(|&label| [b'K', label]).collect();
    let count = [&b"M"[..], &(rows as u16).to_le_bytes()].concat();
    [
        b"\x80\x02}q\x01(",
        &text(b"batch_label")[..],
        b"q\x02",
        &text(b"training batch 1 of 5"),
        b"q\x03",
        &text(key.as_bytes()),
        b"q\x04]q\x05(",
        &labels,
        b"e",
        &text(b"data"),
        b"q\x06cnumpy.core.multiarray\n_reconstruct\nq\x07cnumpy\nndarray\nq\x08K\x00\x85U\x01b\x87Rq\t(K\x01",
        &count,
        b"M\x00\x0c\x86cnumpy\ndtype\nq\nU\x02u1K\x00K\x01\x87Rq\x0b(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb",
        b"\x89T",
        &(planes.len() as u32).to_le_bytes(),
        planes,
        b"tbu.",
    ]
    .concat()
}
