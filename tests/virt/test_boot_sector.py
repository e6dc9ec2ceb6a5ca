"""The boot sector, as bytes."""

from benchbox.virt import boot_sector


def test_it_is_one_sector_that_firmware_boots() -> None:
    """512 bytes with the signature at their end."""
    sector = boot_sector.sector()
    assert (len(sector), sector[-2:]) == (512, b"\x55\xaa")


def test_its_text_is_where_its_code_looks_for_it() -> None:
    """The operand of ``mov si`` is the address of the word, as loaded to 0x7c00."""
    sector = boot_sector.sector()
    address = int.from_bytes(sector[5:7], "little") - 0x7C00
    assert sector[address:].startswith(boot_sector.WORD + b"\0")


def test_without_an_emulator_nothing_is_known() -> None:
    """It cannot be tried."""
    assert boot_sector.runs("qemu-system-there-is-none") is None
